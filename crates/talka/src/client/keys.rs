//! Asks a node about its keys, and for links that let browsers in.

use super::{Client, ClientError};
use reqwest::{Method, Url};
use talka_gateway::LoginLink;
use talka_node::api::{KeyOrder, KeyReport, NewKey};

const KEYS: &str = "/api/keys";

impl Client {
    /// The keys that let callers in.
    pub async fn keys(&self) -> Result<Vec<KeyReport>, ClientError> {
        self.get(KEYS).await
    }

    /// Makes a key.
    pub async fn add_key(&self, order: &KeyOrder) -> Result<NewKey, ClientError> {
        self.post(KEYS, order).await
    }

    /// A fresh link that lets a browser in.
    pub async fn login_link(&self) -> Result<LoginLink, ClientError> {
        self.post("/api/login-links", &serde_json::json!({})).await
    }

    /// Removes the key of this name or id.
    pub async fn remove_key(&self, key: &str) -> Result<KeyReport, ClientError> {
        let response = self.send(self.request(Method::DELETE, &path_of(key))).await?;
        self.read(response).await
    }
}

/// A name may hold anything.
fn path_of(key: &str) -> String {
    let mut url = Url::parse("http://node").expect("a constant address");
    let parts = KEYS.split('/').skip(1).chain([key]);
    url.path_segments_mut().expect("an address with a path").clear().extend(parts);
    url.path().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_the_path() {
        for (key, path) in [
            ("bob", "/api/keys/bob"),
            ("a/b?c#d", "/api/keys/a%2Fb%3Fc%23d"),
            ("100 %", "/api/keys/100%20%25"),
            ("küche", "/api/keys/k%C3%BCche"),
        ] {
            assert_eq!(path_of(key), path);
        }
    }
}
