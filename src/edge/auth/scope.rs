//! What an API key may be limited to.

/// Every scope, in the order clients list them.
pub const SCOPES: [&str; 24] = [
    "auth:read",
    "home:read",
    "projects:read",
    "tasks:read",
    "workers:read",
    "queues:read",
    "agents:read",
    "commands:read",
    "schedules:read",
    "audit:read",
    "memberships:read",
    "notifications:read",
    "automation:read",
    "tasks:write",
    "commands:write",
    "agents:write",
    "projects:write",
    "memberships:write",
    "notifications:write",
    "automation:write",
    "users:read",
    "users:write",
    ADMIN,
    "schedules:write",
];

/// Implies every other scope.
pub const ADMIN: &str = "admin:*";

/// Scopes that only a global administrator can give to a key.
pub const ADMIN_ONLY: [&str; 4] = ["users:read", "users:write", "projects:write", ADMIN];

/// Whether a key's scopes include one: write implies read.
pub fn grants(scopes: &[String], required: &str) -> bool {
    scopes.iter().any(|scope| {
        let implied = scope.strip_suffix(":write").zip(required.strip_suffix(":read"));
        scope == ADMIN || scope == required || implied.is_some_and(|(have, need)| have == need)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_implies_read_and_admin_implies_all() {
        let granted = |have: &str, need: &str| grants(&[have.to_owned()], need);
        assert!(granted("tasks:write", "tasks:read"));
        assert!(granted("tasks:read", "tasks:read"));
        assert!(granted(ADMIN, "users:write"));
        assert!(!granted("tasks:read", "tasks:write"));
        assert!(!granted("tasks:write", "commands:read"));
        assert!(!grants(&[], "tasks:read"));
    }
}
