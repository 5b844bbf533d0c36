//! The page at `/`: the dashboard in a browser, embedded in the binary.
//!
//! Its source is `web`; `page` beside this crate's `src` is what `cargo xtask web` makes of that, and is committed, so that
//! building Talka needs no Node. Holds no data itself and asks no other host for anything; the policy sent along makes
//! the browser enforce that. Everything it shows it asks from `/api` and `/v1` as any program would.
//!
//! A browser asks at each visit whether its copy still fits the node, and gets nothing if it does; parts are packed when
//! they are first asked for.

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use std::{
    io::Write,
    sync::{Arc, OnceLock},
};

/// What the page may do: load its own style and script, talk to its own host, nothing else. It makes no element from
/// text, and trusted types would keep it from doing so.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Where each part is, what it is, and what it holds.
const PARTS: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/talka.css", "text/css; charset=utf-8", include_str!("../page/talka.css")),
    ("/talka.js", "text/javascript; charset=utf-8", include_str!("../page/talka.js")),
    ("/licences.md", "text/plain; charset=utf-8", include_str!("../page/licences.md")),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
];

/// The page and its parts.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PARTS.into_iter().fold(Router::new(), |router, (path, kind, body)| {
        let part = Arc::new(Part::new(kind, body));
        router.route(path, get(async move |headers: HeaderMap| part.answer(&headers)))
    })
}

/// A file of the page.
struct Part {
    kind: &'static str,
    body: &'static str,
    /// Names the content. Weak: it stands for the packed form, too.
    tag: HeaderValue,
    packed: OnceLock<Bytes>,
}

impl Part {
    fn new(kind: &'static str, body: &'static str) -> Self {
        let digest = blake3::hash(body.as_bytes()).to_hex();
        let tag = HeaderValue::try_from(format!("W/\"{}\"", &digest[..16]));
        let tag = tag.expect("hexadecimal digits fit a header");
        Self { kind, body, tag, packed: OnceLock::new() }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers: [(HeaderName, &str); 4] = [
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let headers = (headers, [(header::ETAG, self.tag.clone())]);
        if self.is_known(asked) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let kind = [(header::CONTENT_TYPE, self.kind)];
        if takes_gzip(asked) {
            let packed = [(header::CONTENT_ENCODING, "gzip")];
            return (headers, kind, packed, self.packed()).into_response();
        }
        (headers, kind, self.body).into_response()
    }

    /// Whether the browser has this very content.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let tags = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
        tags.flat_map(|tags| tags.split(',')).any(|tag| self.tag == tag.trim())
    }

    fn packed(&self) -> Bytes {
        let pack = || {
            let mut packer = GzEncoder::new(Vec::new(), Compression::best());
            let packed = packer.write_all(self.body.as_bytes()).and_then(|()| packer.finish());
            Bytes::from(packed.expect("memory takes whatever is written"))
        };
        self.packed.get_or_init(pack).clone()
    }
}

/// Whether the caller reads gzip: it names it, and not with a weight of nought.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let named = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    named.flat_map(|list| list.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use flate2::read::GzDecoder;
    use std::io::Read;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let value = |text: &'static str| HeaderValue::from_static(text);
        pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    #[tokio::test]
    async fn parts_are_packed_for_who_reads_that_and_plain_for_others() {
        let mut packed_bytes = 0;
        for (path, kind, body) in PARTS {
            let part = Part::new(kind, body);
            let plain = part.answer(&HeaderMap::new());
            assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
            let found = to_bytes(plain.into_body(), usize::MAX).await.expect("a body");
            assert_eq!(found, body.as_bytes(), "{path}");

            let packed = part.answer(&headers(&[(header::ACCEPT_ENCODING, "br, gzip")]));
            assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
            assert_eq!(packed.headers()[header::VARY], "accept-encoding");
            let packed = to_bytes(packed.into_body(), usize::MAX).await.expect("a body");
            let mut unpacked = String::new();
            GzDecoder::new(&*packed).read_to_string(&mut unpacked).expect("gzip");
            assert_eq!(unpacked, body, "{path}");
            packed_bytes += packed.len();
        }
        // What a first view may weigh, with all that the page asks besides.
        assert!(packed_bytes < 140_000, "the page weighs {packed_bytes} bytes packed");
    }

    #[test]
    fn a_part_that_the_browser_has_is_not_sent_again() {
        let part = Part::new("text/plain", "some text");
        let first = part.answer(&HeaderMap::new());
        let tag = first.headers()[header::ETAG].clone();
        let ask = |tag: &str| {
            let tag = HeaderValue::from_str(tag).expect("a header");
            part.answer(&HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).status()
        };
        let tag = tag.to_str().expect("text");
        assert_eq!(ask(tag), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&format!("\"old\", {tag}")), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("W/\"old\""), StatusCode::OK);
    }

    #[test]
    fn gzip_is_for_who_asks_for_it() {
        let check = |list: &'static str, expected| {
            assert_eq!(
                takes_gzip(&headers(&[(header::ACCEPT_ENCODING, list)])),
                expected,
                "{list}"
            );
        };
        check("gzip", true);
        check("br;q=1.0, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("gzip;q=x", false);
        check("identity, br", false);
        check("", false);
    }
}
