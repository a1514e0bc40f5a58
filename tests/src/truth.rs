//! What must hold whenever nothing is in flight: projects, machine rows, the provider's machines
//! and the runs that are billed all tell the same story (design.md, invariants 2, 3 and 5).

use std::collections::HashMap;
use std::time::Duration;

use cp_model::{Machine, MachineId, MachineSize, MachineState, ProjectId, ProjectStatus, Region};
use cp_provider::{Machine as Found, Power};
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::App;

struct ProjectRow {
    id: ProjectId,
    status: ProjectStatus,
    access_host: Option<String>,
    size: MachineSize,
}

impl App {
    /// The project's status as its row has it, deleted ones too.
    pub async fn status_of(&self, project: ProjectId) -> ProjectStatus {
        let status: String = sqlx::query_scalar("select status from projects where id = $1")
            .bind(project.0)
            .fetch_one(&mut self.database.connect().await)
            .await
            .expect("the project has a row");
        status.parse().expect("a status is one that we know")
    }

    pub async fn wait_for_status(&self, project: ProjectId, status: ProjectStatus) {
        let mut conn = self.database.connect().await;
        crate::eventually(
            &format!("project {project} is {status}"),
            Duration::from_secs(15),
            async || {
                let seen: String = sqlx::query_scalar("select status from projects where id = $1")
                    .bind(project.0)
                    .fetch_one(&mut conn)
                    .await
                    .ok()?;
                (seen == status.as_str()).then_some(())
            },
        )
        .await;
    }

    /// The machine that the project has now.
    pub async fn machine_of(&self, project: ProjectId) -> Option<Machine> {
        let id: Option<Uuid> = sqlx::query_scalar("select id from machines where project_id = $1")
            .bind(project.0)
            .fetch_optional(&mut self.database.connect().await)
            .await
            .expect("machines can be read");
        self.control_plane
            .find_machine(MachineId(id?))
            .await
            .expect("machines can be read")
    }

    /// Waits until all agree.
    ///
    /// # Panics
    /// When they do not within a minute and a half; tells every discrepancy that is left.
    pub async fn assert_truth(&self) {
        let until = tokio::time::Instant::now() + crate::PATIENCE;
        loop {
            let wrong = self.discrepancies().await;
            if wrong.is_empty() {
                return;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "the records and the world disagree:\n{}",
                wrong.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn discrepancies(&self) -> Vec<String> {
        let mut conn = self.database.connect().await;
        let mut wrong = Vec::new();
        let in_flight: Vec<(Uuid, String, String, String)> = sqlx::query_as(
            "select id, kind, state, step from operations where state in ('queued', 'running', 'waiting')",
        )
        .fetch_all(&mut conn)
        .await
        .expect("operations can be read");
        wrong.extend(
            in_flight
                .iter()
                .map(|(id, kind, state, step)| format!("{kind} {id} is {state} in {step}")),
        );
        let mut rows = Vec::new();
        for region in Region::ALL {
            let living = self
                .control_plane
                .list_living_machines("sim", *region)
                .await;
            rows.extend(living.expect("machines can be read"));
        }
        let alive = self.sim.alive();
        wrong.extend(compare_machines(&rows, &alive));
        let runs = open_runs(&mut conn).await;
        for (machine, (project, count)) in &runs {
            let running = rows.iter().any(|row| {
                row.id == *machine
                    && row.project_id == Some(*project)
                    && matches!(row.state, MachineState::Booting | MachineState::Ready)
            });
            if !running || *count != 1 {
                wrong.push(format!(
                    "{count} open runs of machine {machine} for {project}, which does not run it"
                ));
            }
        }
        for project in projects(&mut conn).await {
            wrong.extend(self.check_project(&project, &rows, &runs).await);
        }
        wrong
    }

    async fn check_project(
        &self,
        project: &ProjectRow,
        rows: &[Machine],
        runs: &HashMap<MachineId, (ProjectId, i64)>,
    ) -> Option<String> {
        let (id, status) = (project.id, project.status);
        let own: Vec<&Machine> = rows
            .iter()
            .filter(|row| row.project_id == Some(id))
            .collect();
        let states: Vec<MachineState> = own.iter().map(|row| row.state).collect();
        let open = own.iter().filter(|row| runs.contains_key(&row.id)).count();
        let told =
            format!("project {id} is {status} with machines {states:?} and {open} open runs");
        let fits = match status {
            ProjectStatus::Active => states == [MachineState::Ready] && open == 1,
            ProjectStatus::Paused => states == [MachineState::Stopped] && open == 0,
            ProjectStatus::Deleted => states.is_empty() && open == 0,
            ProjectStatus::Failed => states.len() <= 1,
            _ => false,
        };
        if !fits {
            return Some(told);
        }
        if status == ProjectStatus::Active {
            let alive = self.sim.alive();
            let found = own
                .iter()
                .find_map(|row| alive.iter().find(|m| m.machine_id == row.id));
            let provided = found.map(|m| MachineSize {
                instance_type: m.instance_type,
                volume_gib: self.sim.volume_gib(m.machine_id).unwrap_or_default(),
            });
            let recorded = own.first().map(|row| MachineSize {
                instance_type: row.instance_type,
                volume_gib: row.volume_gib,
            });
            if recorded != Some(project.size) || provided != recorded {
                return Some(format!(
                    "project {id} has {:?}, its machine's row {recorded:?}, its machine {provided:?}",
                    project.size
                ));
            }
            let host = project.access_host.as_deref().unwrap_or_default();
            return self.probe(id, host).await.err();
        }
        None
    }

    /// An authenticated read through the address that the user gets.
    async fn probe(&self, project: ProjectId, host: &str) -> Result<(), String> {
        let key = self
            .control_plane
            .project_api_key(project)
            .await
            .expect("a live project has its key");
        let answer = self
            .http
            .get(format!("{host}/api/metadata/project-id"))
            .bearer_auth(key.expose_secret())
            .send()
            .await
            .map_err(|e| format!("the backend of {project} does not answer: {e}"))?;
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        if status == 200 && body.contains(&project.to_string()) {
            Ok(())
        } else {
            Err(format!("the backend of {project} answers {status}: {body}"))
        }
    }
}

/// No machine without a row, no row without a machine, no two machines of one row.
fn compare_machines(rows: &[Machine], alive: &[Found]) -> Vec<String> {
    let mut wrong = Vec::new();
    for machine in alive {
        let known = rows.iter().any(|row| {
            row.id == machine.machine_id
                && row.provider_ref.as_deref() == Some(machine.provider_ref.as_str())
        });
        if !known {
            wrong.push(format!(
                "machine {} ({}) has no row",
                machine.machine_id, machine.provider_ref
            ));
        }
    }
    for row in rows {
        let power = alive
            .iter()
            .find(|m| m.machine_id == row.id)
            .map(|m| m.power);
        let fits = match row.state {
            MachineState::Booting | MachineState::Ready => {
                matches!(power, Some(Power::Running | Power::Pending))
            }
            MachineState::Stopped => power == Some(Power::Stopped),
            MachineState::Lost => true,
            MachineState::Launching | MachineState::Terminating | MachineState::Terminated => {
                // Only an operation that failed before its launch leaves such a row.
                row.state == MachineState::Launching && row.project_id.is_some()
            }
        };
        if !fits {
            wrong.push(format!(
                "row {} is {}, its machine {power:?}",
                row.id, row.state
            ));
        }
    }
    wrong
}

async fn open_runs(conn: &mut PgConnection) -> HashMap<MachineId, (ProjectId, i64)> {
    let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(
        "select machine_id, project_id, count(*) from machine_runs where stopped_at is null group by 1, 2",
    )
    .fetch_all(conn)
    .await
    .expect("runs can be read");
    rows.into_iter()
        .map(|(machine, project, count)| (MachineId(machine), (ProjectId(project), count)))
        .collect()
}

async fn projects(conn: &mut PgConnection) -> Vec<ProjectRow> {
    let rows: Vec<(Uuid, String, Option<String>, String, i32)> =
        sqlx::query_as("select id, status, access_host, instance_type, volume_gib from projects")
            .fetch_all(conn)
            .await
            .expect("projects can be read");
    rows.into_iter()
        .map(|(id, status, access_host, kind, volume_gib)| ProjectRow {
            id: ProjectId(id),
            status: status.parse().expect("a status is one that we know"),
            access_host,
            size: MachineSize {
                instance_type: kind.parse().expect("a type is one that we know"),
                volume_gib,
            },
        })
        .collect()
}
