//! `POST /report`: what devices say after a judged boot, one line each in `reports.jsonl`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::StatusCode;
use serde::Serialize;

/// Bytes that a report may have.
pub const MAX_REPORT: usize = 64 * 1024;

#[derive(Serialize)]
struct Line<'a> {
    received: String,
    from: String,
    report: &'a serde_json::Value,
}

/// Takes one report; the status says what became of it.
pub(super) async fn receive(file: Option<&Path>, from: SocketAddr, body: Body) -> StatusCode {
    let Some(file) = file else {
        return StatusCode::NOT_FOUND;
    };
    let Ok(bytes) = axum::body::to_bytes(body, MAX_REPORT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    let Ok(report) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return StatusCode::BAD_REQUEST;
    };
    match append(file, from, &report) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(error) => {
            eprintln!("a device's report was lost: {error:#}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn append(file: &Path, from: SocketAddr, report: &serde_json::Value) -> Result<()> {
    let mut line = serde_json::to_vec(&Line {
        received: jiff::Timestamp::now().to_string(),
        from: from.ip().to_string(),
        report,
    })
    .context("writing a report as JSON")?;
    line.push(b'\n');
    // One write of a whole line in append mode: two reports at once do not mix.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut out| out.write_all(&line))
        .with_context(|| format!("appending to {}", file.display()))
}
