//! Errors as answers: a status and `{"error": "…"}` that says what would be right.
//!
//! The text never repeats what was sent: a token may have been put in the wrong place.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    status: StatusCode,
    error: String,
    header: Option<(header::HeaderName, &'static str)>,
}

impl Fault {
    fn new(status: StatusCode, error: impl Into<String>) -> Fault {
        Fault { status, error: error.into(), header: None }
    }

    pub(super) fn bad(error: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn unauthenticated() -> Fault {
        let error = "no valid credential: send `authorization: Bearer TOKEN`, or a ticket as `?ticket=`";
        Fault {
            header: Some((header::WWW_AUTHENTICATE, "Bearer")),
            ..Fault::new(StatusCode::UNAUTHORIZED, error)
        }
    }

    pub(super) fn forbidden(error: impl Into<String>) -> Fault {
        Fault::new(StatusCode::FORBIDDEN, error)
    }

    /// One answer for a stream that is not there and for one that is somebody else's.
    pub(super) fn no_stream() -> Fault {
        Fault::not_found("no such stream for this credential: GET /v1/streams lists those it may read")
    }

    pub(super) fn not_found(error: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn wrong_method(right: &'static str) -> Fault {
        let error = format!("another method is right here: {right}");
        Fault { header: Some((header::ALLOW, right)), ..Fault::new(StatusCode::METHOD_NOT_ALLOWED, error) }
    }

    pub(super) fn not_configured(error: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_IMPLEMENTED, error)
    }

    pub(super) fn unavailable(error: impl Into<String>) -> Fault {
        let unavailable = Fault::new(StatusCode::SERVICE_UNAVAILABLE, error);
        Fault { header: Some((header::RETRY_AFTER, "5")), ..unavailable }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.error }))).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
