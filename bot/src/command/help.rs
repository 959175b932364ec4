//! Help, from the same table: only what this person may do here.

use super::{CommandSpec, TABLE};
use crate::{
    rights::Role,
    wording::{Cell, Message, Severity, Table, Tone},
};

/// Every command that somebody may use here (by role, or because it was granted), one line each.
pub fn overview(role: Role, may: impl Fn(&CommandSpec) -> bool, prefix: &str) -> Message {
    let mut table = Table::new(&["say", "for"]);
    for spec in TABLE.iter().filter(|spec| may(spec)) {
        table.row([
            Cell::from(format!("{prefix}{}", spec.usage())),
            Cell::from(spec.help),
        ]);
    }
    Message::new(Severity::Info, format!("What you may do here as {role}"))
        .table(table)
        .hint(format!(
            "{prefix}help COMMAND shows one command with an example"
        ))
}

/// One command in full.
pub fn help(spec: &CommandSpec, role: Role, may: bool, prefix: &str) -> Message {
    let message = Message::new(Severity::Info, format!("{prefix}{}", spec.usage()))
        .line(spec.help)
        .line(format!("Example: {prefix}{}", spec.example));
    let message = match spec.aliases {
        [] => message,
        aliases => message.line(format!("Also: {}", aliases.join(", "))),
    };
    if !may {
        let text = format!("Needs the role {}; yours here is {role}", spec.role);
        return message.toned(text, Tone::Warn);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::spec_of, wording::render::plain};

    #[test]
    fn help_is_shaped_by_rights() {
        let by_role = |role| plain(&overview(role, |spec| spec.role <= role, "!"));
        let viewer = by_role(Role::Viewer);
        assert!(
            viewer.contains("!status") && !viewer.contains("!deploy") && !viewer.contains("!trust")
        );
        let operator = by_role(Role::Operator);
        assert!(operator.contains("!deploy") && !operator.contains("!trust"));
        let granted = plain(&overview(Role::Viewer, |spec| spec.name == "deploy", "!"));
        assert!(granted.contains("!deploy") && !granted.contains("!trust"));
        insta::assert_snapshot!(plain(&help(
            spec_of("run").unwrap(),
            Role::Viewer,
            false,
            "!"
        )));
    }
}
