# From what Terraform made to the variables that `insforge-cloud` reads (INSFORGE_<SECTION>_<KEY>). Makes nothing, needs
# no provider, and so can be tried anywhere: scripts/check-infra does.
#
# Lists are written as TOML has them, since that is how the program reads them. A text of JSON is one of TOML too, and
# so is a list of texts; only tables differ (`=` in place of `:`).

locals {
  images = {
    for m in var.machines : m.aws_region => m.image != null
    ? "image=${jsonencode(m.image)}"
    : "image_owner=${jsonencode(m.image_owner)},image_name=${jsonencode(m.image_name)}"
  }

  regions = [
    for m in var.machines : join("", ["{", join(",", [
      "region=${jsonencode(m.region)}",
      "aws_region=${jsonencode(m.aws_region)}",
      "subnets=${jsonencode(m.subnets)}",
      "security_groups=${jsonencode(m.security_groups)}",
      local.images[m.aws_region],
      "instance_types={${join(",", [for size, types in m.instance_types : "${size}=${jsonencode(types)}"])}}",
    ]), "}"])
  ]

  buckets = [
    for b in var.buckets :
    "{region=${jsonencode(b.region)},aws_region=${jsonencode(b.aws_region)},bucket=${jsonencode(b.bucket)}}"
  ]

  pool = [
    for p in var.pool :
    "{region=${jsonencode(p.region)},instance_type=${jsonencode(p.instance_type)},floor=${p.floor},ceiling=${p.ceiling}}"
  ]

  # Checked to the name of the host, against RDS's own certificates. Name and password come from the environment
  # (PGUSER, PGPASSWORD), so that this holds no secret.
  database_url = var.database == null ? null : "postgres://${var.database.address}:${var.database.port}/${var.database.name}?sslmode=verify-full&sslrootcert=${var.database.root_certificates}"

  # One set for all processes, so that `doctor` in the operator's task speaks for API and worker too.
  environment = merge(
    {
      INSFORGE_HTTP_LISTEN          = "0.0.0.0:8080"
      INSFORGE_HTTP_BASE_URL        = "https://${var.domain}"
      INSFORGE_HTTP_TRUSTED_PROXIES = "1" # the load balancer
      INSFORGE_MAIL_FROM            = var.mail_from
      INSFORGE_POOL_TARGETS         = "[${join(",", local.pool)}]"
      INSFORGE_WORKER_PROVIDER      = "ec2"
      INSFORGE_WORKER_ORPHANS       = var.orphans
      INSFORGE_WORKER_LOSSES        = var.losses
      INSFORGE_EC2_DEPLOYMENT       = var.name
      INSFORGE_EC2_ACCESS_HOST      = var.access_host
      INSFORGE_EC2_INSTANCE_PROFILE = var.instance_profile
      INSFORGE_EC2_HOP_LIMIT        = tostring(var.hop_limit)
      INSFORGE_EC2_REGIONS          = "[${join(",", local.regions)}]"
      INSFORGE_OBJECTS_BUCKETS      = "[${join(",", local.buckets)}]"
    },
    var.database == null ? {} : { INSFORGE_DATABASE_URL = local.database_url },
    # Workers that cannot reach the machines' Postgres copy nothing.
    var.branches ? {} : {
      INSFORGE_LIMITS_BRANCHES_PER_PARENT = "0"
      INSFORGE_WORKER_SCHEDULED_BACKUPS   = "0"
    },
    var.log == null ? {} : { INSFORGE_LOG = var.log },
  )

  # The same for a control plane on one server: infra/docker/insforge.toml. What is not here, compose.yaml says. The file
  # is written to by hand afterwards, so each key has its line, and the sender is no jsonencode, which would make \u003c
  # of its <.
  toml = <<-END
    [worker]
    provider = "ec2"
    orphans = ${jsonencode(var.orphans)}
    losses = ${jsonencode(var.losses)}

    [ec2]
    deployment = ${jsonencode(var.name)}
    access_host = ${jsonencode(var.access_host)}
    instance_profile = ${jsonencode(var.instance_profile)}
    hop_limit = ${var.hop_limit}
    regions = [
    ${join("\n", [for region in local.regions : "  ${region},"])}
    ]

    [objects]
    buckets = [
    ${join("\n", [for bucket in local.buckets : "  ${bucket},"])}
    ]

    # Warm machines cost what machines cost; without them a new project takes minutes.
    [pool]
    targets = [
    ${join("\n", [for target in local.pool : "  ${target},"])}
    ]

    %{if !var.branches}# Workers have no way to projects' Postgres, so no branch could be made.
    [limits]
    branches_per_parent = 0

    %{endif}[mail]
    from = "${replace(var.mail_from, "\"", "\\\"")}"
    # Once secrets/smtp_url holds smtps://user:password@host:465
    # smtp_url_file = "/run/secrets/smtp_url"
  END
}
