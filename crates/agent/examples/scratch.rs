use cp_provider::{Compute, LaunchSpec, local::*};
use std::time::{Duration, Instant};
use axum::{Json, Router, routing::*, extract::State, http::StatusCode, response::IntoResponse};
use cp_model::{agent_protocol::*, *};
use tokio::sync::watch;
#[tokio::main]
async fn main() {
    let root = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let bin = std::path::PathBuf::from(std::env::args().nth(2).unwrap());
    let (tx, _) = watch::channel(DesiredState { generation: 0, backend: None });
    let (rtx, mut rrx) = watch::channel(None::<ReportRequest>);
    let tx = std::sync::Arc::new(tx); let rtx = std::sync::Arc::new(rtx);
    let app = Router::new().route("/agent/v1/register", post(|Json(r): Json<RegisterRequest>| async move { Json(RegisterResponse{machine_id: r.machine_id}) }))
      .route("/agent/v1/report", post({let rtx = rtx.clone(); move |Json(r): Json<ReportRequest>| { let rtx = rtx.clone(); async move { rtx.send_replace(Some(r)); StatusCode::NO_CONTENT } }}))
      .route("/agent/v1/desired", get({let tx = tx.clone(); move |q: axum::extract::Query<std::collections::HashMap<String,String>>| { let tx = tx.clone(); async move {
          let g: i64 = q["generation"].parse().unwrap(); let mut rx = tx.subscribe();
          match tokio::time::timeout(Duration::from_secs(25), rx.wait_for(|d| d.generation > g)).await { Ok(d) => Json(d.unwrap().clone()).into_response(), Err(_) => StatusCode::NO_CONTENT.into_response() } } }}));
    let l = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", l.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(l, app).await });
    let c = LocalCompute::open(LocalConfig { dir: root, agent_binary: bin, binaries: cp_pg::Binaries::find().await.unwrap(), durability: cp_pg::Durability::Full, runtime: Runtime::Builtin, control_url: None }).await.unwrap();
    let t = Instant::now(); c.prepare().await.unwrap(); println!("template {:?}", t.elapsed());
    for round in 0..3i64 {
    let id = MachineId::generate();
    tx.send_replace(DesiredState{generation: 0, backend: None});
    let t = Instant::now();
    let m = c.launch(&LaunchSpec { machine_id: id, region: Region::DEFAULT, instance_type: InstanceType::DEFAULT, volume_gib: 8, bootstrap_token: "ibt_x".into(), control_url: url.clone() }).await.unwrap();
    println!("launch {:?}", t.elapsed());
    rrx.wait_for(|r| r.as_ref().is_some_and(|r| r.state == ObservedState::Idle && r.generation == 0)).await.unwrap();
    println!("idle {:?}", t.elapsed());
    rtx.send_replace(None);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let env = [("PROJECT_ID", "x".to_owned()), ("AWS_INSTANCE_PROFILE_NAME", "t".into()), ("CLOUD_API_HOST", url.clone()), ("JWT_SECRET", "j".repeat(40)), ("ACCESS_API_KEY", "ik_0123456789abcdef0123456789abcdef".into()), ("ACCESS_ANON_KEY", "anon_0123456789abcdef0123456789abcdef".into()), ("ROOT_ADMIN_USERNAME", "a".into()), ("ROOT_ADMIN_PASSWORD", "p".repeat(20))];
    let p = ProjectId::generate();
    let mut env: std::collections::BTreeMap<String,String> = env.into_iter().map(|(a,b)|(a.to_owned(),b)).collect(); env.insert("PROJECT_ID".into(), p.to_string());
    let t = Instant::now();
    tx.send_replace(DesiredState { generation: 1, backend: Some(DesiredBackend { project_id: p, restarts: 0, release: None, database_password: "secretpw".into(), env }) });
    rrx.wait_for(|r| r.as_ref().is_some_and(|r| r.state == ObservedState::Serving)).await.unwrap();
    println!("round {round}: identity->serving report {:?}", t.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let out = std::process::Command::new("sh").arg("-c").arg(format!("ps -eo pid,ppid,pgid,user,rss,pss,args --no-headers | grep {} | grep -v grep; ps -eo pid,user,rss,pss,args | grep '[b]ackend' | grep proc; ps -eo pid,user,rss,pss,args| grep '[/]bin/postgres -D'; ", id)).output().unwrap();
    println!("{}", String::from_utf8_lossy(&out.stdout));
    if round == 0 { let o = std::fs::read_to_string(format!("{}/machines/{}/agent.log", std::env::args().nth(1).unwrap(), id)).unwrap(); println!("{o}"); println!("{}", std::fs::read_to_string(format!("{}/machines/{}/backend.log", std::env::args().nth(1).unwrap(), id)).unwrap()); }
    let t = Instant::now(); c.stop(id, &m.provider_ref).await.unwrap(); println!("stop {:?}", t.elapsed());
    rtx.send_replace(None);
    let t = Instant::now(); c.start(id, &m.provider_ref).await.unwrap(); println!("start {:?}", t.elapsed());
    rrx.wait_for(|r| r.as_ref().is_some_and(|r| r.state == ObservedState::Serving)).await.unwrap();
    println!("start->serving {:?}", t.elapsed());
    let t = Instant::now(); c.terminate(id, &m.provider_ref).await.unwrap(); println!("terminate {:?}", t.elapsed());
    }
}
