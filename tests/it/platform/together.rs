//! Several people change the same organization, invitation or project at the same moment: one of them wins, the others are
//! told why, and nothing is left between two owners.

use cp_tests::{Answer, App, Member, Person};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::quiet;

/// Each race is run so often.
const ROUNDS: usize = 6;

/// A team of Ada's, and Lin who administers it, too.
struct Team {
    id: String,
    ada: Member,
    lin: Member,
}

impl Team {
    async fn of(app: &App, round: usize) -> Self {
        let ada = app.member(&format!("Ada{round}")).await;
        let lin = app.stranger(&format!("Lin{round}")).await;
        let id = ada.create_organization("Team").await;
        ada.add(app, &id, &lin, "administrator").await;
        let lin = app.member_of(&lin).await;
        Self { id, ada, lin }
    }

    fn path(&self, rest: &str) -> String {
        format!("/organizations/v1/{}{rest}", self.id)
    }
}

/// A project as a worker would leave it.
async fn active_project(app: &App, by: &Member, organization: &str) -> String {
    let made = by.begin_project(organization, "shop").await.expect(201);
    let id = made["project"]["id"].as_str().unwrap().to_owned();
    for statement in [
        "update operations set state = 'succeeded' where project_id = $1",
        "update projects set status = 'active' where id = $1",
    ] {
        sqlx::query(statement)
            .bind(Uuid::parse_str(&id).unwrap())
            .execute(&mut app.database.connect().await)
            .await
            .unwrap();
    }
    id
}

async fn count(app: &App, query: &'static str, id: &str) -> i64 {
    sqlx::query_scalar(query)
        .bind(Uuid::parse_str(id).unwrap())
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap()
}

async fn administrators(app: &App, team: &str) -> i64 {
    let query = "select count(*) from organization_members where organization_id = $1 and role = 'administrator'";
    count(app, query, team).await
}

/// No race ends with an error of ours.
#[track_caller]
fn are_answers(answers: &[Answer]) {
    for answer in answers {
        assert!(answer.status < 500, "{}: {}", answer.status, answer.text);
    }
}

fn good(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status < 300).count()
}

#[tokio::test]
async fn one_leaves_while_the_other_takes_their_role_or_membership() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let team = Team::of(&app, round).await;
        let her = team.ada.membership(&team.id, &team.ada.user).await;
        let leave = team.path("/leave");
        let member = team.path(&format!("/members/{her}"));
        let role = format!("{member}/role");
        let developer = json!({ "role": "developer" });
        let other = async {
            match round % 2 {
                0 => team.lin.delete(&member).await,
                _ => team.lin.send(Method::PUT, &role, &developer).await,
            }
        };
        // Lin goes, too: whoever is the last one of both stays.
        let (left, changed, gone) =
            tokio::join!(team.ada.post(&leave), other, team.lin.post(&leave));
        let answers = [left, changed, gone];
        are_answers(&answers);
        let left = administrators(&app, &team.id).await;
        assert_eq!(left, 1, "round {round}: {answers:?}");
    }
}

/// Presses a button of the invitation's page, which was opened before.
async fn press(lin: &Person, page: &cp_tests::Page, button: &str) -> u16 {
    let pressed = lin.visitor.press(page, "/invitation", button, &[]).await;
    assert!(pressed.status < 500, "{}", pressed.html);
    pressed.status
}

#[tokio::test]
async fn an_invitation_is_accepted_or_taken_back_and_never_both() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let ada = app.member(&format!("Ada{round}")).await;
        let lin = app.person(&format!("Lin{round}")).await;
        let team = ada.create_organization("Team").await;
        let invited = ada.invite(&team, &lin.email, "developer").await;
        let id = invited.expect(201)["invitation"]["id"].clone();
        let link = app.newest_mail(&lin.email).await.link();
        let page = lin.visitor.open(&link).await;
        let revoke = format!(
            "/organizations/v1/{team}/invitations/{}",
            id.as_str().unwrap()
        );
        let (joined, revoked) = tokio::join!(press(&lin, &page, "Join"), ada.delete(&revoke));
        are_answers(std::slice::from_ref(&revoked));
        let is_member = count(
            &app,
            "select count(*) from organization_members where organization_id = $1",
            &team,
        )
        .await
            == 2;
        assert_eq!(joined == 200, is_member, "round {round}: {joined}");
        assert_eq!(
            revoked.status == 204,
            !is_member,
            "round {round}: {}",
            revoked.text
        );
    }
}

#[tokio::test]
async fn an_invitation_is_accepted_or_declined_and_ends_with_its_inviter() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let team = Team::of(&app, round).await;
        let eve = app.person(&format!("Eve{round}")).await;
        let invited = team.lin.invite(&team.id, &eve.email, "administrator").await;
        invited.expect(201);
        let link = app.newest_mail(&eve.email).await.link();
        let page = eve.visitor.open(&link).await;
        let his = team.ada.membership(&team.id, &team.lin.user).await;
        let remove = team.path(&format!("/members/{his}"));
        // Accepted, declined, and whoever sent it is removed: what he offered ends with him, unless it was taken before.
        let (joined, declined, removed) = tokio::join!(
            press(&eve, &page, "Join"),
            press(&eve, &page, "Decline"),
            team.ada.delete(&remove)
        );
        are_answers(std::slice::from_ref(&removed));
        removed.expect(204);
        let answered = [joined, declined].iter().filter(|s| **s == 200).count();
        assert!(answered <= 1, "round {round}: {joined} {declined}");
        let expected = if joined == 200 { 2 } else { 1 };
        assert_eq!(administrators(&app, &team.id).await, expected);
        let open = "select count(*) from organization_invitations where organization_id = $1 and status = 'pending'";
        assert_eq!(count(&app, open, &team.id).await, 0, "round {round}");
    }
}

fn to(organization: &str) -> Value {
    json!({ "targetOrganizationId": organization })
}

#[tokio::test]
async fn of_two_who_take_a_project_home_one_has_it() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let team = Team::of(&app, round).await;
        let project = active_project(&app, &team.ada, &team.id).await;
        let homes = [team.ada.home().await, team.lin.home().await];
        let path = format!("/projects/v1/{project}/transfer");
        let (to_her, to_him) = (to(&homes[0]), to(&homes[1]));
        let (hers, his) = tokio::join!(
            team.ada.send(Method::POST, &path, &to_her),
            team.lin.send(Method::POST, &path, &to_him)
        );
        let answers = [hers, his];
        are_answers(&answers);
        // For the other it is not there any more.
        assert_eq!(good(&answers), 1, "round {round}: {answers:?}");
        let lost = answers.iter().find(|answer| answer.status != 200).unwrap();
        assert_eq!(lost.status, 404, "{}", lost.text);
        let winner = &homes[usize::from(answers[1].status == 200)];
        let [ada, lin] = [&team.ada, &team.lin];
        for (home, by) in [(&homes[0], ada), (&homes[1], lin)] {
            let listed = by.get(&format!("/organizations/v1/{home}/projects")).await;
            let listed = listed.expect(200)["projects"].as_array().unwrap().len();
            assert_eq!(listed, usize::from(home == winner), "round {round}");
        }
        let audited = "select count(*) from audit_log where action = 'project.transferred' and target_id = $1::text";
        assert_eq!(count(&app, audited, &project).await, 2, "one transfer");
    }
}

#[tokio::test]
async fn one_who_gives_a_project_to_two_at_once_gives_it_to_one_after_the_other() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let ada = app.member(&format!("Ada{round}")).await;
        let home = ada.home().await;
        let teams = [
            ada.create_organization("One").await,
            ada.create_organization("Two").await,
        ];
        let project = active_project(&app, &ada, &home).await;
        let path = format!("/projects/v1/{project}/transfer");
        let bodies: Vec<_> = [&teams[0], &teams[1], &teams[0], &teams[1]]
            .map(|t| to(t))
            .into();
        let sent = bodies
            .iter()
            .map(|body| ada.send(Method::POST, &path, body));
        let answers = join_all(sent).await;
        are_answers(&answers);
        assert_eq!(good(&answers), 4, "round {round}: {answers:?}");
        let owner = ada.project(&project).await["organization_id"].clone();
        let mut seen = 0;
        for organization in teams.iter().chain([&home]) {
            let listed = ada
                .get(&format!("/organizations/v1/{organization}/projects"))
                .await;
            let listed = listed.expect(200);
            let listed = listed["projects"].as_array().unwrap().len();
            assert_eq!(listed == 1, owner == **organization, "round {round}");
            seen += listed;
        }
        assert_eq!(seen, 1);
    }
}

#[tokio::test]
async fn a_project_is_never_given_to_what_is_deleted_at_that_moment() {
    let app = quiet().await;
    for round in 0..ROUNDS {
        let team = Team::of(&app, round).await;
        let home = team.ada.home().await;
        let project = active_project(&app, &team.ada, &home).await;
        let path = format!("/projects/v1/{project}/transfer");
        let (body, target) = (to(&team.id), team.path(""));
        let (given, deleted) = tokio::join!(
            team.ada.send(Method::POST, &path, &body),
            team.lin.delete(&target)
        );
        let answers = [given, deleted];
        are_answers(&answers);
        assert_eq!(good(&answers), 1, "round {round}: {answers:?}");
        let [given, deleted] = answers;
        let owner = team.ada.project(&project).await["organization_id"].clone();
        if given.status == 200 {
            deleted.expect_code(409, "organization_has_projects");
            assert_eq!(owner, team.id);
        } else {
            given.expect_code(404, "organization_not_found");
            assert_eq!(owner, home);
        }
    }
}
