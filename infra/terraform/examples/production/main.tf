# The whole: the control plane in us-east-1, machines and objects there and in us-west-2. docs/deploy.md leads through it.
#
# A further region is a provider in versions.tf, a range in `cidrs`, a module `machines`, a module `objects` and a module
# `peering` below, and a line in each of the two lists of `locals`.

data "aws_ecr_repository" "server" {
  name = var.repository
}

locals {
  machines = [module.machines_us_east, module.machines_us_west]
  objects  = [module.objects_us_east, module.objects_us_west]

  image      = "${data.aws_ecr_repository.server.repository_url}@${var.image_digest}"
  task_image = var.task_image_digest == null ? null : "${data.aws_ecr_repository.server.repository_url}@${var.task_image_digest}"

  gateway = {
    domain  = var.apps_domain
    zone_id = var.apps_zone_id
  }
}

# ---- Machines and objects, region by region --------------------------------------------------------------------------

module "machines_us_east" {
  source = "../../modules/machines"

  name                = var.name
  region              = "us-east"
  cidr                = var.cidrs.us_east
  image_id            = lookup(var.machine_images, "us-east", null)
  gateway             = local.gateway
  emails              = var.emails
  deletion_protection = var.deletion_protection
}

module "objects_us_east" {
  source = "../../modules/objects"

  name   = var.name
  region = "us-east"
}

module "machines_us_west" {
  source    = "../../modules/machines"
  providers = { aws = aws.us_west }

  name                = var.name
  region              = "us-west"
  cidr                = var.cidrs.us_west
  image_id            = lookup(var.machine_images, "us-west", null)
  gateway             = local.gateway
  emails              = var.emails
  deletion_protection = var.deletion_protection
}

module "objects_us_west" {
  source    = "../../modules/objects"
  providers = { aws = aws.us_west }

  name   = var.name
  region = "us-west"
}

# ---- Control plane ---------------------------------------------------------------------------------------------------

module "network" {
  source = "../../modules/network"

  name      = var.name
  cidr      = var.cidrs.control_plane
  databases = true
}

# From workers to projects' Postgres, region by region, for branches.
module "peering_us_east" {
  source    = "../../modules/peering"
  providers = { aws = aws, aws.machines = aws }
  count     = var.branches ? 1 : 0

  name     = var.name
  workers  = module.network.private
  machines = module.machines_us_east.peering
}

module "peering_us_west" {
  source    = "../../modules/peering"
  providers = { aws = aws, aws.machines = aws.us_west }
  count     = var.branches ? 1 : 0

  name     = var.name
  workers  = module.network.private
  machines = module.machines_us_west.peering
}

module "secrets" {
  source = "../../modules/secrets"

  name            = var.name
  replica_regions = ["us-west-2"]
}

module "database" {
  source = "../../modules/database"

  name                = var.name
  vpc_id              = module.network.vpc_id
  subnet_ids          = module.network.database_subnet_ids
  clients             = { tasks = module.services.tasks_security_group_id }
  instance_class      = var.database_class
  deletion_protection = var.deletion_protection
}

# For the day on which us-east-1 is gone.
module "database_copy" {
  source    = "../../modules/database-copy"
  providers = { aws = aws.us_west }

  name         = var.name
  instance_arn = module.database.arn
}

module "identity" {
  source = "../../modules/identity"

  name                 = var.name
  machines             = [for region in local.machines : region.launch]
  bucket_arns          = [for region in local.objects : region.arn]
  repository_arn       = data.aws_ecr_repository.server.arn
  secret_arns          = values(module.secrets.arns)
  master_secret_arn    = module.database.master_secret_arn
  sessions_on_machines = var.sessions_on_machines
}

module "configuration" {
  source = "../../modules/configuration"

  name             = var.name
  domain           = var.domain
  database         = { address = module.database.address, port = module.database.port }
  access_host      = "https://{app_key}-{address_label}.{region}.${var.apps_domain}"
  instance_profile = module.identity.instance_profile
  machines         = [for region in local.machines : region.configuration]
  buckets          = [for region in local.objects : region.configuration]
  pool             = var.pool
  branches         = var.branches
  orphans          = var.orphans
  losses           = var.losses
  mail_from        = var.mail_from
}

module "services" {
  source = "../../modules/services"

  name                = var.name
  domain              = var.domain
  zone_id             = var.zone_id
  vpc_id              = module.network.vpc_id
  public_subnet_ids   = module.network.public_subnet_ids
  subnet_ids          = module.network.private_subnet_ids
  image               = local.image
  task_image          = local.task_image
  environment         = module.configuration.environment
  secret_arns         = module.secrets.arns
  mail                = var.mail
  running             = var.running
  worker_running      = var.worker_running
  deletion_protection = var.deletion_protection

  database = {
    address           = module.database.address
    port              = module.database.port
    master_secret_arn = module.database.master_secret_arn
  }

  roles = {
    execution          = module.identity.execution_role_arn
    execution_database = module.identity.execution_database_role_arn
    api                = module.identity.api_role_arn
    worker             = module.identity.worker_role_arn
    worker_name        = module.identity.worker_role_name
    operator           = module.identity.operator_role_arn
  }
}

module "observability" {
  source = "../../modules/observability"

  name               = var.name
  emails             = var.emails
  cluster            = module.services.cluster
  api_tasks          = 2
  worker_tasks       = 2
  load_balancer      = module.services.load_balancer
  target_group       = module.services.target_group
  log_groups         = module.services.log_groups
  metrics_namespace  = module.services.metrics_namespace
  database           = { identifier = module.database.identifier }
  running            = var.running && var.worker_running
  monthly_budget_usd = var.monthly_budget_usd
}
