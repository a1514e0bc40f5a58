//! `insforge-cloud merge`, as far as it is not its command line.

use cp_merge::{
    Choice,
    command::{MergeCommand, Outcome, SnapshotCommand, diff, merge, take_snapshot},
};

use crate::{database::Database, merging::Pair};

const BASE: &str = "
    CREATE TABLE public.users (id int PRIMARY KEY, mail text);
    CREATE TYPE public.mood AS ENUM ('good');";

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    async fn snapshot(&self, database: &Database, name: &str) {
        let command = SnapshotCommand {
            address: database.url().parse().unwrap(),
            output: self.dir.path().join(name),
        };
        let mut out = Vec::new();
        let outcome = take_snapshot(&command, &mut out).await.unwrap();
        assert_eq!(outcome.code(), 0);
        assert!(String::from_utf8(out).unwrap().contains(" facts, "));
    }

    fn command(&self, pair: &Pair) -> MergeCommand {
        let branch_base = self.dir.path().join("branch");
        MergeCommand {
            base: self.dir.path().join("parent"),
            branch_base: branch_base.exists().then_some(branch_base),
            parent: pair.parent.url().parse().unwrap(),
            branch: pair.branch.url().parse().unwrap(),
            resolve: Vec::new(),
            online: false,
            json: false,
            colour: false,
        }
    }
}

async fn run(command: &MergeCommand, apply: bool) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = if apply {
        merge(command, &mut out).await
    } else {
        diff(command, &mut out).await
    };
    (outcome.unwrap(), String::from_utf8(out).unwrap())
}

async fn files(pair: &Pair) -> Files {
    let files = Files {
        dir: tempfile::tempdir().unwrap(),
    };
    files.snapshot(&pair.parent, "parent").await;
    files.snapshot(&pair.branch, "branch").await;
    files
}

#[tokio::test]
async fn a_clean_merge_is_shown_then_done_then_nothing() {
    let pair = Pair::new(BASE).await;
    let files = files(&pair).await;
    pair.branch
        .psql("ALTER TABLE public.users ADD COLUMN age int")
        .await;
    let mut command = files.command(&pair);

    let (outcome, text) = run(&command, false).await;
    assert_eq!(outcome.code(), 0);
    assert!(text.starts_with("+ column public.users.age\n"), "{text}");
    assert!(text.contains("ADD COLUMN age integer;"), "{text}");
    assert!(!text.contains('\u{1b}'));
    command.colour = true;
    assert!(
        run(&command, false)
            .await
            .1
            .contains("\u{1b}[32m+ column public.users.age\u{1b}[0m")
    );

    let (outcome, text) = run(&command, true).await;
    assert_eq!(outcome, Outcome::Clean);
    assert!(text.contains("Merged: 1 statements, attempt 1."), "{text}");
    let (outcome, text) = run(&command, true).await;
    assert_eq!(outcome, Outcome::Clean);
    assert!(text.contains("Nothing to merge."), "{text}");
}

#[tokio::test]
async fn conflicts_are_code_two_until_they_are_resolved() {
    let pair = Pair::new(BASE).await;
    let files = files(&pair).await;
    pair.parent
        .psql("ALTER TABLE public.users ALTER mail SET DEFAULT 'a'")
        .await;
    pair.branch
        .psql("ALTER TABLE public.users ALTER mail SET DEFAULT 'b'")
        .await;
    let mut command = files.command(&pair);

    let (_, text) = run(&command, false).await;
    let told = "default from none to 'b'::text\n  parent now:\n    mail text DEFAULT 'a'::text\n  \
                branch now:\n    mail text DEFAULT 'b'::text\n";
    assert!(text.contains(told), "{text}");
    command.json = true;

    let (outcome, text) = run(&command, false).await;
    assert_eq!(outcome.code(), 2);
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["summary"]["conflicts"], 1);
    let conflict = &body["conflicts"][0];
    assert_eq!(
        (&conflict["schema"], &conflict["object"], &conflict["type"]),
        (&"public".into(), &"users.mail".into(), &"column".into())
    );
    for hash in ["parent_t0_hash", "parent_now_hash", "branch_now_hash"] {
        assert_eq!(conflict[hash].as_str().unwrap().len(), 64, "{hash}");
    }
    assert!(
        body["rendered_sql"]
            .as_str()
            .unwrap()
            .starts_with("-- ⚠️ MERGE BLOCKED: 1 object changed on both sides\n")
    );

    let (outcome, text) = run(&command, true).await;
    assert_eq!(outcome.code(), 2);
    assert!(text.contains("\"blocked\""));
    let default =
        "SELECT column_default FROM information_schema.columns WHERE column_name = 'mail'";
    assert_eq!(pair.parent.psql(default).await, "'a'::text");

    command.resolve = vec![("public.users.mail".to_owned(), Choice::Branch)];
    let (outcome, text) = run(&command, true).await;
    assert_eq!(outcome.code(), 0, "{text}");
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&body["status"], &body["statements"]),
        (&"merged".into(), &1.into())
    );
    assert_eq!(pair.parent.psql(default).await, "'b'::text");
}

#[tokio::test]
async fn what_an_online_merge_leaves_is_code_one_and_done_by_the_same_command() {
    let pair = Pair::new(&format!("{BASE} CREATE TABLE public.switch (id int);")).await;
    let files = files(&pair).await;
    // Holds for all rows while they are only asked, and for none when they are to be proved.
    pair.branch
        .psql(
            "CREATE FUNCTION public.ready(int) RETURNS boolean LANGUAGE sql AS
                $$ SELECT current_setting('transaction_read_only') = 'on' OR EXISTS (SELECT FROM public.switch) $$;
             CREATE INDEX users_mail ON public.users (mail);
             ALTER TABLE public.users ADD CONSTRAINT is_ready CHECK (public.ready(id))",
        )
        .await;
    pair.parent
        .psql("INSERT INTO public.users VALUES (1, 'a')")
        .await;
    let mut command = files.command(&pair);
    command.online = true;
    let (outcome, text) = run(&command, true).await;
    assert_eq!(
        (outcome, outcome.code()),
        (Outcome::Unfinished, 1),
        "{text}"
    );
    assert!(
        text.contains("After the commit: CREATE INDEX CONCURRENTLY users_mail ON public.users USING btree (mail)\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "not finished: constraint public.users.is_ready: run `ALTER TABLE public.users VALIDATE"
        ),
        "{text}"
    );
    assert!(text.contains("run the same command again"), "{text}");

    pair.parent
        .psql("INSERT INTO public.switch VALUES (1)")
        .await;
    command.json = true;
    let (outcome, text) = run(&command, true).await;
    assert_eq!(outcome, Outcome::Clean, "{text}");
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["unfinished"], serde_json::json!([]));
    assert_eq!(
        body["finished"],
        serde_json::json!([{
            "type": "constraint", "name": "public.users.is_ready",
            "statement": "ALTER TABLE public.users VALIDATE CONSTRAINT is_ready"
        }])
    );
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn of_long_definitions_the_beginning_is_shown() {
    let pair = Pair::new(BASE).await;
    let files = files(&pair).await;
    for (database, n) in [(&pair.parent, 1), (&pair.branch, 2)] {
        let body = "-- a\n".repeat(20);
        database
            .psql(&format!(
                "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS $f$\n{body}SELECT {n} $f$"
            ))
            .await;
    }
    let (_, text) = run(&files.command(&pair), false).await;
    // Four lines before the body, and its last one.
    assert_eq!(text.matches("    … 13 more lines\n").count(), 2, "{text}");
}

#[tokio::test]
async fn what_needs_a_migration_is_code_two() {
    let pair = Pair::new(BASE).await;
    let files = files(&pair).await;
    pair.parent
        .psql("INSERT INTO public.users VALUES (1, NULL)")
        .await;
    pair.branch
        .psql("ALTER TABLE public.users ALTER mail SET NOT NULL")
        .await;
    let (outcome, text) = run(&files.command(&pair), true).await;
    assert_eq!(outcome.code(), 2);
    assert!(
        text.contains("needs a migration: column public.users.mail: "),
        "{text}"
    );
    assert!(text.ends_with("Nothing was applied.\n"), "{text}");
}

#[tokio::test]
async fn one_base_serves_for_copies_of_any_kind() {
    for pair in [Pair::new(BASE).await, Pair::quick(BASE).await] {
        let files = files(&pair).await;
        std::fs::remove_file(files.dir.path().join("branch")).unwrap();
        pair.branch.psql("CREATE TABLE public.more (id int)").await;
        let (outcome, text) = run(&files.command(&pair), false).await;
        assert_eq!(outcome.code(), 0);
        assert!(text.starts_with("+ table public.more\n\n"), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_snapshot_is_an_error_that_names_the_file() {
    let pair = Pair::quick(BASE).await;
    let files = files(&pair).await;
    std::fs::write(files.dir.path().join("parent"), "something").unwrap();
    let error = diff(&files.command(&pair), &mut Vec::new())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("parent: not a snapshot of this release"),
        "{text}"
    );
    std::fs::remove_file(files.dir.path().join("parent")).unwrap();
    let error = diff(&files.command(&pair), &mut Vec::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}
