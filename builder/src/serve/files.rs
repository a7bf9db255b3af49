//! Files over HTTP: ranges, validators and the log, around `tower-http`'s directory service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{header, HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Router;
use tower_http::services::ServeDir;

use super::fault::{Fault, Faults};
use super::{body, report, Log, Served};

/// What a request needs to be answered.
pub(super) struct Site {
    pub(super) dir: PathBuf,
    pub(super) reports: Option<PathBuf>,
    pub(super) faults: Faults,
    pub(super) log: Log,
}

/// The service: every path is a file below the directory, but `POST /report`.
pub(super) fn router(site: Site) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(site))
}

async fn handle(
    State(site): State<Arc<Site>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (request, sent) = request.into_parts();
    let method = request.method.clone();
    let path = request.uri.path().to_string();
    let range = text(&request.headers, header::RANGE);
    let fault = site.faults.take(&path);
    let response = match fault {
        Some(Fault::Status(status)) => StatusCode::from_u16(status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response(),
        _ if path == "/report" && method == Method::POST => {
            report::receive(site.reports.as_deref(), from, sent)
                .await
                .into_response()
        }
        _ => file(&site.dir, &request).await,
    };
    let response = match fault {
        Some(fault) => response.map(|inner| body::faulty(inner, fault)),
        None => response,
    };
    let status = response.status().as_u16();
    let log = site.log.clone();
    response.map(|inner| {
        body::counted(inner, move |bytes| {
            log.add(Served {
                method: method.to_string(),
                path,
                range,
                status,
                bytes,
            });
        })
    })
}

/// Serves one file. A range is only honoured if the client's `If-Range` (when there is one) names
/// the file as it is now: a resumed download must never be two versions glued together.
async fn file(dir: &std::path::Path, request: &Parts) -> Response {
    let if_range = request.headers.get(header::IF_RANGE).cloned();
    let response = service(dir, request, true).await;
    let ranged = matches!(
        response.status(),
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    );
    match if_range {
        Some(condition) if ranged => {
            let whole = service(dir, request, false).await;
            // The validators of the whole file: a 416 carries none.
            if still_the_same(&condition, whole.headers()) {
                response
            } else {
                whole
            }
        }
        _ => response,
    }
}

async fn service(dir: &std::path::Path, request: &Parts, with_range: bool) -> Response {
    let mut inner = Request::new(Body::empty());
    *inner.method_mut() = request.method.clone();
    *inner.uri_mut() = request.uri.clone();
    *inner.headers_mut() = request.headers.clone();
    if !with_range {
        inner.headers_mut().remove(header::RANGE);
    }
    let mut files = ServeDir::new(dir)
        .append_index_html_on_directories(false)
        .redirect_to_trailing_slash(false)
        .ignore_multi_range_requests(true);
    match files.try_call(inner).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            response.headers_mut().insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            response
        }
        Err(error) => not_readable(request.uri.path(), &error),
    }
}

fn not_readable(path: &str, error: &std::io::Error) -> Response {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound | Kind::NotADirectory | Kind::InvalidInput => {
            StatusCode::NOT_FOUND.into_response()
        }
        _ if error.raw_os_error() == Some(nix::errno::Errno::ENAMETOOLONG as i32) => {
            StatusCode::NOT_FOUND.into_response()
        }
        Kind::PermissionDenied => StatusCode::FORBIDDEN.into_response(),
        _ => {
            eprintln!("reading {path} for a client: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// RFC 9110, 13.1.5: an entity tag compares strongly, a date must be exactly `Last-Modified`.
fn still_the_same(condition: &HeaderValue, now: &HeaderMap) -> bool {
    let name = if condition.as_bytes().starts_with(b"\"") {
        header::ETAG
    } else {
        header::LAST_MODIFIED
    };
    now.get(name) == Some(condition)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_string())
}
