# Backups and write-ahead log of the database, copied to this module's region as they are made: what is left when the
# control plane's region is gone (docs/region-outage.md).

resource "aws_kms_key" "this" {
  description             = "Copies of the database backups of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_db_instance_automated_backups_replication" "this" {
  source_db_instance_arn = var.instance_arn
  kms_key_id             = aws_kms_key.this.arn
  retention_period       = var.backup_days
}
