//! What visitors do at our pages in more than one story, with the texts that the pages show.

use crate::{Page, Visitor};

impl Visitor {
    /// # Panics
    /// When the pages do not let them in.
    pub async fn sign_in(&self, email: &str, password: &str) -> Page {
        let page = self.open("/login").await;
        let values = [("email", email), ("password", password)];
        let page = self.submit(&page, "/login", &values).await;
        assert_eq!(page.url.path(), "/settings", "{}", page.text());
        page
    }

    /// Opens the link that an application sends people to, signed in, and allows what it asks for.
    /// Gives where they are sent back.
    ///
    /// # Panics
    /// When that does not lead to an application.
    pub async fn allow(&self, authorize_url: &str) -> Page {
        let page = self.open(authorize_url).await;
        let back = if page.is_elsewhere {
            page
        } else {
            self.press(&page, "/consent", "Allow", &[]).await
        };
        assert!(back.is_elsewhere, "{}: {}", back.url, back.text());
        back
    }

    /// Goes on from the page of a device's link, signed in, and decides.
    ///
    /// # Panics
    /// When the pages do not take it.
    pub async fn decide_device(&self, page: &Page, decision: &str) -> Page {
        let page = self.submit(page, "/device", &[]).await;
        let page = self.press(&page, "/device/decision", decision, &[]).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page
    }

    /// A key that may do everything, from the settings, signed in.
    ///
    /// # Panics
    /// When the page shows none.
    pub async fn make_api_key(&self, name: &str) -> String {
        let page = self.open("/settings").await;
        let page = self
            .submit(&page, "/settings/api-keys", &[("key_name", name)])
            .await;
        let (_, shown) = page
            .html
            .split_once(">uak_")
            .unwrap_or_else(|| panic!("no key on {}:\n{}", page.url, page.text()));
        format!("uak_{}", shown.split('<').next().unwrap_or_default())
    }

    /// Revokes the first key of the settings.
    ///
    /// # Panics
    /// When there is none.
    pub async fn revoke_api_key(&self) {
        let page = self.open("/settings").await;
        let page = self.submit(&page, "/settings/api-keys/revoke", &[]).await;
        page.expect_text("revoked");
    }
}
