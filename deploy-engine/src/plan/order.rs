//! Services in the order of their needs.

use crate::model::{Model, ServiceName, before};

/// Every service after those that it waits for; otherwise by name. The model has no cycles.
pub fn by_needs(model: &Model) -> Vec<ServiceName> {
    let mut order = Vec::new();
    for name in model.services.keys() {
        visit(model, name, &mut order);
    }
    order
}

fn visit(model: &Model, name: &ServiceName, order: &mut Vec<ServiceName>) {
    if order.contains(name) {
        return;
    }
    if let Some(deployment) = model.services.get(name) {
        for need in before(&deployment.spec, &model.services) {
            visit(model, need, order);
        }
        order.push(name.clone());
    }
}
