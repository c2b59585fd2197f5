//! `prefd erase`: erases all data of a user, in a running server or in a data directory that
//! no server has open.

use std::path::Path;

use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::admin::erased_json;
use crate::commands::admin_client::{AdminOptions, block_on};
use crate::commands::console::{self, ProgressBar};
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_data_dir};
use crate::http::Body;

/// Options of `prefd erase`.
#[derive(Debug, Args)]
pub(super) struct EraseOptions {
    /// Id of the user to erase, as in the tokens of this user
    #[arg(long, value_name = "USER")]
    user: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreLocation,
}

/// Erases a user. If some data could not be erased, the error contains the result as JSON.
pub(super) fn run(options: &EraseOptions) -> Result<(), CommandError> {
    let erased = match &options.store.data_dir {
        Some(data_dir) => erase_offline(data_dir, &options.user)?,
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
        return Ok(());
    }
    Err(CommandError::EraseIncomplete(erased.to_string()))
}

fn erase_offline(data_dir: &Path, user: &str) -> Result<Value, CommandError> {
    let store = open_data_dir(data_dir)?;
    let mut bar = ProgressBar::new("erasing");
    let erased = store.erase(user, &mut |progress| bar.show(progress));
    drop(bar);
    store.close()?;
    Ok(erased_json(&erased?))
}

async fn erase_online(admin: &AdminOptions, user: &str) -> Result<Value, CommandError> {
    let path = user_path(user);
    let response = admin.send(Method::DELETE, &path, Body::empty()).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}

/// Returns the URL path of a user on the admin listener.
pub(super) fn user_path(user: &str) -> String {
    format!("/users/{}", utf8_percent_encode(user, NON_ALPHANUMERIC))
}
