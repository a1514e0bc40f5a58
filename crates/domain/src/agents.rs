//! The machines' agents: how they register, what they shall do, what they report.
//!
//! Rows are locked in the house's one order: project, operation, machine (see `operations`).

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::agent_protocol::{
    DesiredBackend, DesiredState, ObservedState, RENEWAL_OVERLAP_SECONDS, RegisterRequest,
    RegisterResponse, RenewRequest, ReportRequest,
};
use cp_model::{FieldError, Machine, MachineId, Project};
use cp_storage::notifications::Topic;
use cp_storage::{
    PgConnection, StorageError, branches, machines, metrics, operations, projects, wakeups,
};
use cp_tokens::secret::{OpaqueSecret, SecretKind, constant_time_eq};
use tokio::time::Instant;

use crate::secrets::SecretName;
use crate::{ControlPlane, DomainError, DomainResult};

impl ControlPlane {
    /// Uses up the machine's bootstrap token and takes the token that the agent made for itself.
    pub async fn register_agent(
        &self,
        request: &RegisterRequest,
    ) -> DomainResult<RegisterResponse> {
        let bootstrap = OpaqueSecret::parse(SecretKind::BootstrapToken, &request.bootstrap_token)
            .map_err(|_| DomainError::Unauthorized)?;
        let agent = OpaqueSecret::parse(SecretKind::AgentToken, &request.agent_token)
            .map_err(|_| DomainError::Unauthorized)?;
        let mut tx = self.db().begin().await?;
        if let Some(machine) = machines::find_machine(&mut tx, request.machine_id).await? {
            self.wake_for(&mut tx, &machine).await?;
        }
        let machine = machines::mark_registered(
            &mut tx,
            request.machine_id,
            bootstrap.hash().as_bytes(),
            agent.hash().as_bytes(),
            &request.agent_version,
            self.now(),
        )
        .await?
        .ok_or(DomainError::Unauthorized)?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(RegisterResponse {
            machine_id: machine.id,
        })
    }

    /// Takes the token that an agent made for itself in place of the one that it has.
    pub async fn renew_agent_token(
        &self,
        token: Option<&str>,
        request: &RenewRequest,
    ) -> DomainResult<()> {
        let presented = OpaqueSecret::parse(SecretKind::AgentToken, token.unwrap_or_default())
            .map_err(|_| DomainError::Unauthorized)?;
        let renewed = OpaqueSecret::parse(SecretKind::AgentToken, &request.agent_token)
            .map_err(|_| FieldError::new("agent_token", "must be a token that the agent made"))?;
        let (presented, renewed) = (presented.hash(), renewed.hash());
        if constant_time_eq(presented.as_bytes(), renewed.as_bytes()) {
            return Err(FieldError::new("agent_token", "must be another one").into());
        }
        let now = self.now();
        let until = now + TimeDelta::seconds(RENEWAL_OVERLAP_SECONDS);
        let mut conn = self.db().acquire().await?;
        let done = machines::mark_renewed(
            &mut conn,
            presented.as_bytes(),
            renewed.as_bytes(),
            now,
            until,
        );
        if done.await? {
            Ok(())
        } else {
            Err(DomainError::Unauthorized)
        }
    }

    pub async fn authenticate_agent(&self, token: Option<&str>) -> DomainResult<MachineId> {
        let token = OpaqueSecret::parse(SecretKind::AgentToken, token.unwrap_or_default())
            .map_err(|_| DomainError::Unauthorized)?;
        let mut conn = self.db().acquire().await?;
        let (hash, now) = (token.hash(), self.now());
        let machine = machines::find_by_agent_token(&mut conn, hash.as_bytes(), now).await?;
        machine.map(|m| m.id).ok_or(DomainError::Unauthorized)
    }

    /// What the machine shall be, if that is newer than `known`; waits up to `wait` for it.
    pub async fn desired_state(
        &self,
        machine: MachineId,
        known: i64,
        wait: Duration,
    ) -> DomainResult<Option<DesiredState>> {
        let until = Instant::now() + wait;
        let mut changes = self
            .db()
            .notifications()
            .subscribe(Topic::Machines, &machine.to_string());
        loop {
            let mut conn = self.db().acquire().await?;
            let current = machines::find_machine(&mut conn, machine)
                .await?
                .ok_or(DomainError::Unauthorized)?;
            if current.desired_generation > known {
                return self.build_desired(&mut conn, &current).await.map(Some);
            }
            // A waiting agent holds no connection.
            drop(conn);
            if tokio::time::timeout_at(until, changes.changed())
                .await
                .is_err()
            {
                return Ok(None);
            }
        }
    }

    async fn build_desired(
        &self,
        conn: &mut PgConnection,
        machine: &Machine,
    ) -> DomainResult<DesiredState> {
        let project = match machine.project_id {
            Some(id) => projects::find_project(conn, id)
                .await?
                .filter(|p| p.status.is_live()),
            None => None,
        };
        let backend = match project {
            // Without its address a backend cannot be told who it is.
            Some(project) if project.access_host.is_some() => {
                Some(self.build_backend(conn, machine, &project).await?)
            }
            _ => None,
        };
        Ok(DesiredState {
            generation: machine.desired_generation,
            backend,
        })
    }

    /// Whether the project's backend may run: not while its database is restored, nor a branch's before that.
    async fn serves(&self, conn: &mut PgConnection, project: &Project) -> DomainResult<bool> {
        if !projects::find_serves(conn, project.id).await? {
            return Ok(false);
        }
        if project.parent_id.is_none() {
            return Ok(true);
        }
        let branch = branches::find_branch(conn, project.id).await?;
        Ok(branch.is_none_or(|branch| branch.serves))
    }

    /// The environment contract, but for what only the agent knows
    /// (contract/project-backend.md sections 1.1 and 1.2).
    async fn build_backend(
        &self,
        conn: &mut PgConnection,
        machine: &Machine,
        project: &Project,
    ) -> DomainResult<DesiredBackend> {
        let secrets = self.open_secrets(conn, project.id).await?;
        let text = |name: SecretName| secrets.get(name).map(str::to_owned);
        let env = BTreeMap::from([
            ("PROJECT_ID".to_owned(), project.id.to_string()),
            ("APP_KEY".to_owned(), project.app_key.clone()),
            (
                "CLOUD_API_HOST".to_owned(),
                self.settings().base_url.clone(),
            ),
            (
                "API_BASE_URL".to_owned(),
                project.access_host.clone().unwrap_or_default(),
            ),
            // The one switch of cloud mode; the value itself is used nowhere.
            (
                "AWS_INSTANCE_PROFILE_NAME".to_owned(),
                "insforge-project".to_owned(),
            ),
            ("JWT_SECRET".to_owned(), text(SecretName::JwtSecret)?),
            (
                "ENCRYPTION_KEY".to_owned(),
                text(SecretName::EncryptionKey)?,
            ),
            ("ACCESS_API_KEY".to_owned(), text(SecretName::ApiKey)?),
            ("ACCESS_ANON_KEY".to_owned(), text(SecretName::AnonKey)?),
            ("ROOT_ADMIN_USERNAME".to_owned(), "admin".to_owned()),
            (
                "ROOT_ADMIN_PASSWORD".to_owned(),
                text(SecretName::AdminPassword)?,
            ),
            ("POSTGRES_DB".to_owned(), "insforge".to_owned()),
            ("POSTGRES_USER".to_owned(), "postgres".to_owned()),
        ]);
        Ok(DesiredBackend {
            project_id: project.id,
            restarts: machine.restarts,
            release: project.release.clone(),
            database_password: text(SecretName::DatabasePassword)?,
            env,
            database_only: !self.serves(conn, project).await?,
        })
    }

    /// Keeps what the agent saw and wakes the operation that may be waiting for it.
    pub async fn record_report(
        &self,
        machine: MachineId,
        report: &ReportRequest,
    ) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let Some(before) = machines::find_machine(&mut tx, machine).await? else {
            return Err(DomainError::Unauthorized);
        };
        // An agent can only have seen what it was told.
        if !(0..=before.desired_generation).contains(&report.generation) {
            return Err(
                FieldError::new("generation", "must be one that the agent was told").into(),
            );
        }
        if let Some(project) = before.project_id {
            if let Some(sample) = &report.sample {
                metrics::add_sample(&mut tx, project, machine, sample, now).await?;
            }
            if report.state == ObservedState::Serving {
                projects::set_last_activity(&mut tx, project, now).await?;
            }
            let news = before.observed_state != Some(report.state)
                || before.observed_generation != Some(report.generation)
                || before.observed_restarts != Some(report.restarts);
            if news {
                self.wake_for(&mut tx, &before).await?;
            }
        }
        machines::record_report(&mut tx, machine, report, now).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Wakes the operation in flight on the machine's project, in the caller's transaction.
    pub(crate) async fn wake_for(
        &self,
        conn: &mut PgConnection,
        machine: &Machine,
    ) -> DomainResult<()> {
        if let Some(project) = machine.project_id
            && let Some(operation) = operations::wake(conn, project, self.now()).await?
        {
            wakeups::push(conn, operation).await?;
        }
        Ok(())
    }
}
