//! `prefd erase`: erases all data of a user, in a running server or in a data directory that
//! no server has open.

use std::path::Path;

use clap::Args;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::admin::erased_json;
use crate::commands::admin_client::{AdminOptions, block_on};
use crate::commands::console::{self, ProgressBar};
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_data_dir};
use crate::http::Body;
use crate::store::{Name, owner};

/// Options of `prefd erase`.
#[derive(Debug, Args)]
pub(super) struct EraseOptions {
    /// Id of the user to erase, as in the tokens of this user
    #[arg(long, value_name = "USER", value_parser = Name::new)]
    user: Name,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreLocation,
}

/// Erases a user. If some data could not be erased, the error describes the data that remains.
pub(super) fn run(options: &EraseOptions) -> Result<(), CommandError> {
    let erased = match &options.store.data_dir {
        Some(data_dir) => owner::as_owner(data_dir, || erase_offline(data_dir, &options.user))??,
        None => block_on(erase_online(&options.store.admin, &options.user))?,
    };
    if options.json {
        console::print_json(&erased)?;
    } else {
        let documents = erased.get("documents").and_then(Value::as_u64);
        let documents = documents.unwrap_or_default().to_string();
        console::print(&console::table(&[("documents erased", documents)]))?;
    }
    if erased.get("complete") == Some(&Value::Bool(true)) {
        // A repeated erasure also succeeds, so a missing user is not an error.
        let is_zero = |name| erased.get(name).and_then(Value::as_u64) == Some(0);
        if is_zero("documents") && is_zero("segments") {
            let user = options.user.as_str();
            console::print_problem(&format!(
                "nothing was erased, because the store contains no data of user {user:?}. If you \
                 expected data, check that this is the user id in the tokens of the user"
            ));
        }
        return Ok(());
    }
    Err(CommandError::EraseIncomplete(remaining_data(&erased)))
}

fn erase_offline(data_dir: &Path, user: &Name) -> Result<Value, CommandError> {
    let store = open_data_dir(data_dir)?;
    let mut bar = ProgressBar::new("erasing");
    let erased = store.erase(user.as_str(), &mut |progress| bar.show(progress));
    drop(bar);
    store.close()?;
    Ok(erased_json(&erased?))
}

async fn erase_online(admin: &AdminOptions, user: &Name) -> Result<Value, CommandError> {
    let path = user_path(user);
    let fields = ["complete", "documents", "segments"];
    admin
        .send_for_json(Method::DELETE, &path, Body::empty(), &fields)
        .await
}

/// Describes the data that an incomplete erasure has left, and what to do about it. `erased` is the
/// result of the erasure, as in [`erased_json`].
fn remaining_data(erased: &Value) -> String {
    let texts = |name: &str| {
        let values = erased.get(name).and_then(Value::as_array);
        values
            .into_iter()
            .flatten()
            .map(|text| text.as_str().unwrap_or_default())
    };
    let unreadable = texts("unreadable").zip(texts("unreadable_reasons"));
    let mut lines: Vec<_> = unreadable
        .map(|(path, reason)| format!("{path} may contain data of the user, but {reason}"))
        .collect();
    let count = |name| erased.get(name).and_then(Value::as_u64).unwrap_or_default();
    let held = count("held_by_snapshots");
    if held > 0 {
        lines.push(format!(
            "files that a running backup still needs, and that may contain data of the user: \
             {held}. Run prefd erase again after the backup"
        ));
    }
    let kept = count("deletes_kept");
    if kept > 0 {
        lines.push(format!(
            "records of deleted documents that are kept because a damaged segment may contain the \
             documents: {kept}. The records contain the names of the user and of the clients"
        ));
    }
    lines.join("\n")
}

/// Returns the URL path of a user on the admin listener.
pub(super) fn user_path(user: &Name) -> String {
    let user = utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC);
    format!("/users/{user}")
}
