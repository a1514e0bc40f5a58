# Places for secrets, without their values: those are put there by infra/bin/secrets, so that no state file and no plan
# ever holds one.

locals {
  secrets = {
    "sealing-key"        = "Seals what the control plane stores: id:base64 of 32 bytes. Lost, nothing sealed can be read again."
    "older-sealing-keys" = "A list as TOML has it of sealing keys from before: [] or [\"id:base64\"]."
    "database-role"      = "Name and password of the role that the control plane logs in with, as JSON."
    "smtp-url"           = "The mail server: smtps://user:password@host:465."
  }
}

resource "aws_secretsmanager_secret" "this" {
  for_each = local.secrets

  name                    = "${var.name}/${each.key}"
  description             = each.value
  recovery_window_in_days = var.recovery_days

  dynamic "replica" {
    for_each = toset(var.replica_regions)

    content {
      region = replica.value
    }
  }
}
