//! Counts requests per key and minute, over all processes.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::error::StorageResult;

/// Takes `take` from the key's budget in the window that began at `window_start`; gives how much
/// of the window was used before. An older window is replaced.
pub async fn take(
    conn: &mut PgConnection,
    key: &str,
    window_start: DateTime<Utc>,
    take: i64,
) -> StorageResult<i64> {
    let used = sqlx::query_scalar!(
        "insert into rate_limit_windows as w (key, window_start, used) values ($1, $2, $3)
         on conflict (key) do update set
             used = case when w.window_start >= $2 then w.used + $3 else $3 end,
             window_start = greatest(w.window_start, $2)
         returning used",
        key,
        window_start,
        take
    )
    .fetch_one(conn)
    .await?;
    Ok(used - take)
}

/// How much of the window is used.
pub async fn used(
    conn: &mut PgConnection,
    key: &str,
    window_start: DateTime<Utc>,
) -> StorageResult<i64> {
    let used = sqlx::query_scalar!(
        "select used from rate_limit_windows where key = $1 and window_start >= $2",
        key,
        window_start
    )
    .fetch_optional(conn)
    .await?;
    Ok(used.unwrap_or(0))
}
