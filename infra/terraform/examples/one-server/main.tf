# What a control plane on one server (infra/docker) needs on AWS: machines and objects of one region, and the rights to
# use them. The server itself is not here.
#
# A further region is a provider in versions.tf, a module `machines`, a module `objects` and a module `peering` below, and an
# entry in each of the lists that name them; examples/production has two.

module "machines" {
  source = "../../modules/machines"

  name                = var.name
  region              = "us-east"
  cidr                = "10.64.0.0/16"
  image_id            = var.machine_image
  gateway             = { domain = var.apps_domain, zone_id = var.apps_zone_id }
  emails              = var.emails
  deletion_protection = var.deletion_protection
}

module "objects" {
  source = "../../modules/objects"

  name   = var.name
  region = "us-east"
}

# From the server's worker to projects' Postgres, for branches.
module "peering" {
  source    = "../../modules/peering"
  providers = { aws = aws, aws.machines = aws }
  count     = var.server == null ? 0 : 1

  name     = var.name
  machines = module.machines.peering

  workers = {
    vpc_id          = var.server.vpc_id
    subnet_cidrs    = [var.server.subnet_cidr]
    route_table_ids = { server = var.server.route_table_id }
  }
}

module "identity" {
  source = "../../modules/identity"

  name                 = var.name
  tasks                = false
  machines             = [module.machines.launch]
  bucket_arns          = [module.objects.arn]
  sessions_on_machines = var.sessions_on_machines
}

module "configuration" {
  source = "../../modules/configuration"

  name             = var.name
  domain           = var.domain
  access_host      = "https://{app_key}-{address_label}.{region}.${var.apps_domain}"
  instance_profile = module.identity.instance_profile
  machines         = [module.machines.configuration]
  buckets          = [module.objects.configuration]
  pool             = var.pool
  branches         = var.server != null
  mail_from        = var.mail_from
}
