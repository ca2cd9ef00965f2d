//! `bailiwick token`: who may call the cell.

use cell::api::types::TokenRequest;
use clap::{Args, Subcommand};
use domain::Name;
use domain::principal::Role;

use crate::apply::parse_name;
use crate::args::Global;
use crate::client::Client;
use crate::errors::{Outcome, note};
use crate::get::moment;
use crate::output::{self, Format, shown};
use crate::span::Span;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick token create grafana --role viewer --expires 90d > grafana.token
  bailiwick token list
  bailiwick token revoke grafana

Roles: viewer reads machines, GPUs and classes; auditor reads events too; operator plans and applies; admin makes tokens.")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token and print it, this once
    Create {
        /// Its name; events call its holder so
        #[arg(value_parser = parse_name)]
        name: Name,
        /// viewer, auditor, operator or admin
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// How long it lives, such as 30d or 12h; without end where absent
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
        /// Form of the output [default: the bare token]
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Show all tokens that live, without their secrets
    List {
        /// Form of the output [default: table]
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Revoke a token at once
    Revoke {
        /// Its name
        name: String,
    },
}

impl TokenArgs {
    pub(crate) fn output(&self) -> Option<Format> {
        match &self.action {
            Action::Create { output, .. } | Action::List { output } => *output,
            Action::Revoke { .. } => None,
        }
    }
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| {
        let roles = Role::ALL.map(Role::as_str);
        format!("there is no role {text:?}; {}", domain::manifest::suggestion(text, &roles))
    })
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &TokenArgs) -> Outcome {
    let client = Client::of(global)?;
    match &args.action {
        Action::Create { name, role, expires, output } => {
            let expires_in_seconds = expires.map(|span| span.duration().as_secs());
            let request = TokenRequest { name: name.clone(), role: *role, expires_in_seconds };
            let token = client.create_token(&request).await?;
            // The secret is the output: it is shown this once and can be put into a file.
            output::value(output.unwrap_or(Format::Table), &token, |token| format!("{}\n", token.token.0))
        }
        Action::List { output } => {
            let tokens = client.tokens().await?;
            output::value(output.unwrap_or(Format::Table), &tokens, |tokens| {
                let rows = tokens.iter().map(|token| {
                    vec![
                        token.name.to_string(),
                        token.role.to_string(),
                        moment(token.created_at),
                        shown(token.expires_at.map(moment).as_ref()),
                    ]
                });
                output::table(&["NAME", "ROLE", "CREATED", "EXPIRES"], rows)
            })
        }
        Action::Revoke { name } => {
            client.revoke_token(name).await?;
            note(&format!("token {name} revoked"));
            Ok(())
        }
    }
}
