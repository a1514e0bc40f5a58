//! People's accounts, as far as partners make them.

use cp_model::{OrganizationId, Plan, UserId, field};
use cp_storage::{PgConnection, StorageError, accounts, partners};
use cp_tokens::password;
use secrecy::SecretString;
use serde_json::json;

use crate::context::{IdempotentRequest, PartnerCaller};
use crate::{ControlPlane, DomainError, DomainResult, Effect};

impl ControlPlane {
    /// Links the person with this address to the partner, making the account if there is none.
    /// The answer does not tell which it was.
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
        let user = self.ensure_account(&mut tx, &name, &email).await?;
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

    /// An account with a personal organization on the free plan, no password, address not
    /// verified; an existing one stays as it is.
    async fn ensure_account(
        &self,
        conn: &mut PgConnection,
        name: &str,
        email: &str,
    ) -> DomainResult<UserId> {
        let now = self.now();
        let (user, is_new) = accounts::upsert_user(conn, email, name, now).await?;
        if is_new {
            let organization = OrganizationId::generate();
            accounts::insert_organization(conn, organization, name, "personal", Plan::Free, now)
                .await?;
            accounts::insert_administrator(conn, organization, user, now).await?;
        }
        Ok(user)
    }

    /// For `dev` and operators: an account with a password and a verified address.
    pub async fn create_user(
        &self,
        name: &str,
        email: &str,
        password: &SecretString,
    ) -> DomainResult<UserId> {
        let name = field::person_name("name", name)?;
        let email = field::email("email", email)?;
        let hash = self.hash_password(password).await?;
        let mut tx = self.db().begin().await?;
        let user = self.ensure_account(&mut tx, &name, &email).await?;
        accounts::set_password(&mut tx, user, &hash, Some(self.now())).await?;
        let target = user.to_string();
        self.audit_service(
            &mut tx,
            "operator",
            "user.created",
            ("user", &target),
            None,
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(user)
    }

    async fn hash_password(&self, password: &SecretString) -> DomainResult<String> {
        let password = password.clone();
        self.inner
            .hashing
            .run(move || password::hash(&password))
            .await?
            .map_err(DomainError::internal)
    }

    /// For operators: changes what a person's own organization pays for.
    pub async fn set_user_plan(&self, user: UserId, plan: Plan) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let (organization, _) = accounts::lock_personal_organization(&mut tx, user)
            .await?
            .ok_or(DomainError::NotFound(crate::Thing::User))?;
        accounts::set_plan(&mut tx, organization, plan).await?;
        let target = organization.to_string();
        let details = json!({ "plan": plan.as_str() });
        self.audit_service(
            &mut tx,
            "operator",
            "organization.plan_set",
            ("organization", &target),
            None,
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }
}
