fn main() {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let t = std::time::Instant::now();
    rt.block_on(async {
        let c = cp_devbackend::Config::from_env().unwrap_or_else(|e| panic!("{e}"));
        let p = c.port;
        tokio::spawn(async move {
            loop {
                if tokio::net::TcpStream::connect(("127.0.0.1", p))
                    .await
                    .is_ok()
                {
                    eprintln!("open after {:?}", t.elapsed());
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
        cp_devbackend::run(c, async {
            tokio::signal::ctrl_c().await.ok();
        })
        .await
        .unwrap();
    });
}
