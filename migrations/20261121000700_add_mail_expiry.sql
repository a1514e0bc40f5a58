-- A mail whose code or link no longer works would only mislead: it is not sent.

alter table mails
    add column expires_at timestamptz;
comment on column mails.expires_at is 'When what the mail offers ends; null: it stays worth reading.';
