//! `cargo xtask help`: commands, and topics that belong to no single one.

use clap::CommandFactory;
use deploy_plan::exit::Exit;

use crate::cli::Cli;
use crate::render;

pub(crate) fn run(topic: &[String]) -> Exit {
    let words: Vec<&str> = topic.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit-codes"] => render::out(&exit_codes()),
        ["environment"] => render::out(ENVIRONMENT),
        words => return command(words),
    }
    Exit::Done
}

fn command(words: &[&str]) -> Exit {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for word in words {
        let Some(next) = found.find_subcommand_mut(word) else {
            render::err(&format!(
                "error: there is no command or topic `{}`; topics: exit-codes, environment\n",
                words.join(" ")
            ));
            return Exit::Usage;
        };
        found = next;
    }
    render::out(&found.render_long_help().to_string());
    Exit::Done
}

fn exit_codes() -> String {
    let line = |exit: &Exit| format!("{:>3}  {}", exit.code(), exit.meaning());
    let lines: Vec<String> = Exit::ALL.iter().map(line).collect();
    format!("{}\n", lines.join("\n"))
}

const ENVIRONMENT: &str = "\
SYSTEMPROMPT_API_TOKEN    token for the Management API; wins over .systemprompt/credentials.json
SYSTEMPROMPT_API_URL      address of the Management API (api.url)
SYSTEMPROMPT_TENANT_ID    tenant to deploy to (api.tenant_id)
SYSTEMPROMPT_ENVIRONMENT  environment to use when --environment is not given
SYSTEMPROMPT_A_B          the configuration's key a.b, for every key
SOURCE_DATE_EPOCH         time of everything in the image, in seconds since 1970 [default: 1]
SYSTEMPROMPT_SIGNING_KEY  key to sign images with, in place of image.signing_key_file
HTTPS_PROXY, NO_PROXY     proxy for all that is not on this machine, and what it is not for
SSL_CERT_FILE             root certificates in PEM, in place of the built-in ones
DOCKER_AUTH_CONFIG        credentials for the registries of base images, as a config.json of Docker
DOCKER_HOST               the Docker Engine for --builder docker
APPLICATION_ID            the application of an aramb.toml that has builds
ARAMB_API_TOKEN           token of its control plane
BUILDKIT_HOST             where older versions of its command build images
ARAMB_RELEASES_URL        where --install-cli finds its command, in place of GitHub
ARAMB_INSTALL_DIR         where --install-cli puts it, in place of /usr/local/bin or ~/.local/bin
NO_COLOR                  no colour on the terminal
";

#[cfg(test)]
mod tests {
    #[test]
    fn every_exit_code_is_explained() {
        let text = super::exit_codes();
        assert_eq!(text.lines().count(), 14);
        assert!(text.contains("  8  the release failed and what served before serves again"));
    }
}
