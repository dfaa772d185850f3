//! Exit codes: the one list, printed by `cargo xtask help exit-codes`.

/// How a command ends, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// A failure that no other code names.
    Other = 1,
    /// Wrong arguments.
    Usage = 2,
    /// The configuration or a preflight check.
    Configuration = 3,
    /// Credentials missing, expired or refused.
    Authentication = 4,
    /// A build command.
    Build = 5,
    /// The registry.
    Push = 6,
    /// Another deployment holds the lock.
    Locked = 7,
    /// The release failed; what served before serves again.
    RolledBack = 8,
    /// The release failed and so did the rollback.
    NeedsOperator = 9,
    /// The release failed and nothing was there to return to, or rollback is off.
    Unverified = 10,
    /// A migration.
    Migration = 11,
    /// All was done, and nobody could be told of it.
    Untold = 12,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 14] = [
        Self::Done,
        Self::Other,
        Self::Usage,
        Self::Configuration,
        Self::Authentication,
        Self::Build,
        Self::Push,
        Self::Locked,
        Self::RolledBack,
        Self::NeedsOperator,
        Self::Unverified,
        Self::Migration,
        Self::Untold,
        Self::Interrupted,
    ];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for people.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "another failure",
            Self::Usage => "wrong arguments",
            Self::Configuration => "configuration or preflight: nothing was begun",
            Self::Authentication => "credentials are missing, expired or refused",
            Self::Build => "a build failed",
            Self::Push => "the registry refused or could not be reached",
            Self::Locked => "another deployment of this tenant is running",
            Self::RolledBack => "the release failed and what served before serves again",
            Self::NeedsOperator => {
                "the release failed and so did its rollback: an operator is needed"
            }
            Self::Unverified => "the release failed and there was nothing to return to",
            Self::Migration => "a database migration failed",
            Self::Untold => "done, but the result could not be written to standard output",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn codes_are_distinct_and_ordered() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
    }
}
