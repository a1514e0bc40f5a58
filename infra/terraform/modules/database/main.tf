# The control plane's Postgres: encrypted, with a standby, restorable to any second, reached over TLS only.
#
# RDS keeps the master's password in Secrets Manager and changes it every week, so no process of ours may use it: it
# would lose its connections without warning. It is for `infra/bin/task database-roles`, which makes the roles that the
# control plane logs in with.

locals {
  identifier = "${var.name}-control-plane"
}

# A key of our own, since a copy in another region needs one that we may name.
resource "aws_kms_key" "this" {
  description             = "Disk, backups and statistics of ${local.identifier}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.identifier}"
  target_key_id = aws_kms_key.this.key_id
}

resource "aws_db_subnet_group" "this" {
  name       = local.identifier
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "this" {
  name        = "${local.identifier}-database"
  description = "Postgres of the control plane"
  vpc_id      = var.vpc_id

  tags = { Name = "${local.identifier}-database" }
}

# Never an address range: whoever connects has one of these groups.
resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.clients

  security_group_id            = aws_security_group.this.id
  description                  = "Postgres from ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  referenced_security_group_id = each.value
}

resource "aws_db_parameter_group" "this" {
  # A prefix: a new major version needs a new group before the old one can go.
  name_prefix = "${local.identifier}-"
  family      = "postgres${var.engine_version}"
  description = "Postgres ${var.engine_version} of the control plane"

  # Refuses connections without TLS.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # Slow statements are worth a line; all others would be noise.
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  # Parameters may hold secrets on their way to be hashed or sealed; keep them out of the log.
  parameter {
    name  = "log_parameter_max_length"
    value = "0"
  }

  parameter {
    name  = "log_parameter_max_length_on_error"
    value = "0"
  }

  # A transaction that its process forgot holds up vacuum for everybody. Ours take milliseconds.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "60000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Made before the instance writes to them, or they would have no end.
resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${local.identifier}/${each.key}"
  retention_in_days = var.log_days
}

resource "aws_db_instance" "this" {
  identifier = local.identifier

  engine                      = "postgres"
  engine_version              = var.engine_version
  allow_major_version_upgrade = var.allow_major_version_upgrade
  auto_minor_version_upgrade  = true
  instance_class              = var.instance_class
  parameter_group_name        = aws_db_parameter_group.this.name
  ca_cert_identifier          = "rds-ca-rsa2048-g1"

  storage_type          = "gp3"
  allocated_storage     = var.storage_gib
  max_allocated_storage = var.max_storage_gib
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.this.arn

  username                    = "postgres"
  manage_master_user_password = true

  multi_az               = var.multi_az
  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]

  backup_retention_period   = var.backup_days
  backup_window             = "03:00-04:00"
  maintenance_window        = "sun:04:30-sun:05:30"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = false
  final_snapshot_identifier = "${local.identifier}-final"
  # Otherwise changes wait for the window, so that an apply at noon restarts nothing.
  apply_immediately = var.apply_immediately

  database_insights_mode          = "standard"
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.this.arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.this]
}
