//! Settings that are one word out of a few.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A word that is none of those allowed.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what} `{found}`, expected one of {}", expected.join(", "))]
pub struct UnknownWord {
    /// What the word would have named.
    pub what: &'static str,
    /// The word that was given.
    pub found: String,
    /// The words there are.
    pub expected: &'static [&'static str],
}

/// One list of words gives the type, its spelling in files and its spelling on the terminal.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident ($what:literal) {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// All there are, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];
            const WORDS: &'static [&'static str] = &[$( $word, )+];

            /// The word as it is written in files and on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(UnknownWord {
                        what: $what,
                        found: text.to_owned(),
                        expected: Self::WORDS,
                    }),
                }
            }
        }
    };
}

words! {
    /// The order in which the instances of two releases are exchanged.
    Strategy ("strategy") {
        /// New instances take over one by one.
        #[default]
        Rolling = "rolling",
        /// All new instances are well before any traffic moves, then all of it moves at once.
        BlueGreen = "blue-green",
        /// A small share of the traffic goes first.
        Canary = "canary",
        /// The old instances stop before the new ones start: never two releases at a time. Requests wait
        /// meanwhile.
        Recreate = "recreate",
    }
}

words! {
    /// Which instances are started again that have ended.
    Restart ("restart policy") {
        /// All of them.
        #[default]
        Always = "always",
        /// Those that ended with anything but 0.
        OnFailure = "on-failure",
        /// None.
        Never = "never",
    }
}

words! {
    /// Who assembles the image.
    Builder ("builder") {
        /// Natively where the Dockerfile allows it, else with Docker if it is there.
        #[default]
        Auto = "auto",
        /// Natively, without a container engine.
        Native = "native",
        /// With Docker.
        Docker = "docker",
    }
}

words! {
    /// How an instance is asked whether it is well.
    HealthKind ("kind of health check") {
        /// A `GET` on its port.
        #[default]
        Http = "http",
        /// A connection to its port.
        Tcp = "tcp",
        /// A command inside of it, which has to end with 0.
        Command = "command",
        /// The image's own `HEALTHCHECK`, at its own times where it has some.
        Image = "image",
        /// Not at all: its program has to run for the start period.
        Process = "process",
    }
}

words! {
    /// How an instance of a service beside `app` is asked whether it is well.
    ServiceHealthKind ("kind of health check") {
        /// As it speaks: `http` or `tcp`, and `process` where it listens nowhere.
        #[default]
        Auto = "auto",
        /// A `GET` on its port.
        Http = "http",
        /// A connection to its port.
        Tcp = "tcp",
        /// A command inside of it, which has to end with 0.
        Command = "command",
        /// The image's own `HEALTHCHECK`, at its own times where it has some.
        Image = "image",
        /// Not at all: its program has to run, for the start period at first, which is `2s` here unless it is said.
        Process = "process",
    }
}

words! {
    /// What a service speaks on its port.
    Protocol ("protocol") {
        /// HTTP where it has routes; else it listens nowhere.
        #[default]
        None = "none",
        /// HTTP.
        Http = "http",
        /// Anything on connections, a database for instance.
        Tcp = "tcp",
    }
}

words! {
    /// How a running instance is asked whether it can still be helped.
    LivenessKind ("kind of liveness check") {
        /// Not at all: one that is not well is started again.
        #[default]
        None = "none",
        /// A `GET` on its port.
        Http = "http",
        /// A connection to its port.
        Tcp = "tcp",
        /// A command inside of it, which has to end with 0.
        Command = "command",
    }
}

words! {
    /// How the image's layers are sent.
    Compression ("compression") {
        /// As they are to this machine, gzip to others.
        #[default]
        Auto = "auto",
        /// As they are.
        None = "none",
        /// gzip: what every registry and engine takes.
        Gzip = "gzip",
        /// zstd: smaller and faster, for engines that take it. Needs the program `zstd`.
        Zstd = "zstd",
    }
}

words! {
    /// How tenant calls of the Management API are authenticated.
    Auth ("way to authenticate") {
        /// The token as it is, and exchanged if the server asks for that.
        #[default]
        Auto = "auto",
        /// The token as it is.
        Bearer = "bearer",
        /// The token exchanged for a short-lived one first.
        Exchange = "exchange",
    }
}

words! {
    /// The platform that runs the releases.
    ControlPlane ("control plane") {
        /// The platform started on this machine, with its state under `.systemprompt/local/`.
        Embedded = "embedded",
        /// The platform behind `api.url`.
        #[default]
        ManagementApi = "management-api",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.as_str().parse::<Strategy>().unwrap(), *strategy);
            assert_eq!(
                serde_json::to_value(strategy).unwrap(),
                serde_json::Value::from(strategy.as_str())
            );
        }
    }

    #[test]
    fn an_unknown_word_lists_the_known_ones() {
        let error = "kubernetes".parse::<ControlPlane>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown control plane `kubernetes`, expected one of embedded, management-api"
        );
    }
}
