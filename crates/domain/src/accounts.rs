//! People's accounts, as far as partners make them and plans go; the rest is in [`crate::people`].

use cp_model::{Plan, UserId, field};
use cp_storage::{StorageError, organizations, partners};
use serde_json::json;

use crate::context::{IdempotentRequest, PartnerCaller};
use crate::{ControlPlane, DomainError, DomainResult, Effect};

impl ControlPlane {
    /// Links the person with this address to the partner, making the account if there is none.
    /// The answer does not tell which it was.
    ///
    /// An account whose address was never proven loses what somebody has set up on it, password
    /// and all: from here on it is the account of whoever reads that address's mail, who signs in
    /// by a code for the first time.
    pub async fn connect_user(
        &self,
        by: &PartnerCaller,
        name: &str,
        email: &str,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let name = field::person_name("name", name)?;
        let email = field::email("email", email)?;
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, &by.partner.id, key).await?;
        let (user, is_new) = self.ensure_account(&mut tx, &name, &email).await?;
        if !is_new {
            self.end_what_a_stranger_began(&mut tx, user, &name).await?;
        }
        partners::connect_user(&mut tx, &by.partner.id, user, self.now()).await?;
        let target = user.to_string();
        self.audit_partner(&mut tx, by, "user.connected", ("user", &target), json!({}))
            .await?;
        let effect = Effect::User(user);
        self.note_effect(&mut tx, &by.partner.id, key, effect)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// For operators: gives a plan to a person's own organization, as [`ControlPlane::grant_plan`] does.
    pub async fn set_user_plan(&self, user: UserId, plan: Plan) -> DomainResult<Plan> {
        let mut conn = self.db().acquire().await?;
        let home = organizations::find_home(&mut conn, user)
            .await?
            .ok_or(DomainError::NotFound(crate::Thing::User))?;
        drop(conn);
        self.grant_plan(home, plan).await
    }
}
