//! The needs between steps as a graph. Checked once, when a job is created.

use super::Step;

/// Most steps of one job: 1,000 hosts with 50 steps each. More is a mistake in whatever wrote them.
pub const STEPS_MAX: usize = 50_000;

/// The steps' positions in an order in which every step comes after all its needs.
///
/// # Errors
/// Says which step is numbered wrongly, needs a step that does not exist, or is part of a circle.
pub fn order(steps: &[Step]) -> Result<Vec<usize>, String> {
    if steps.len() > STEPS_MAX {
        return Err(format!(
            "expected at most {STEPS_MAX} steps, found {}",
            steps.len()
        ));
    }
    let mut open_needs = vec![0_usize; steps.len()];
    let mut needed_by = vec![Vec::new(); steps.len()];
    for (position, step) in steps.iter().enumerate() {
        if step.id.0 as usize != position {
            return Err(format!(
                "expected step {position} at position {position}, found step {}",
                step.id
            ));
        }
        for need in &step.needs {
            let known = needed_by.get_mut(need.0 as usize).ok_or_else(|| {
                format!(
                    "step {position} needs step {need}, which does not exist: there are {} steps",
                    steps.len()
                )
            })?;
            known.push(position);
            open_needs[position] += 1;
        }
    }
    let mut order: Vec<usize> = (0..steps.len()).filter(|&at| open_needs[at] == 0).collect();
    let mut next = 0;
    while let Some(&done) = order.get(next) {
        next += 1;
        for &dependent in &needed_by[done] {
            open_needs[dependent] -= 1;
            if open_needs[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    match open_needs.iter().position(|&needs| needs > 0) {
        Some(circle) => Err(format!(
            "step {circle} ({}) needs itself through its needs",
            steps[circle].title
        )),
        None => Ok(order),
    }
}
