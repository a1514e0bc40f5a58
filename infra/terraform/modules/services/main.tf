# The control plane's processes on ECS Fargate: API behind a load balancer, worker, and tasks that are run when they are
# needed (migrate, operator, database-roles, psql: infra/bin/task).

data "aws_region" "current" {}

locals {
  region     = data.aws_region.current.region
  task_image = coalesce(var.task_image, var.image)

  # The address of the metrics is loopback by default (admin.listen). It stays so: the health check and the collector
  # share the task's loopback, and nobody else needs it.
  metrics = "127.0.0.1:8081"

  environment = [for name, value in var.environment : { name = name, value = value }]

  # ECS puts these into the environment when it starts the task; they are in no task definition. `:key::` takes one key
  # of a secret that is JSON.
  secrets = concat(
    [
      { name = "INSFORGE_SECRETS_SEALING_KEY", valueFrom = var.secret_arns["sealing-key"] },
      { name = "INSFORGE_SECRETS_OLDER_SEALING_KEYS", valueFrom = var.secret_arns["older-sealing-keys"] },
      { name = "PGUSER", valueFrom = "${var.secret_arns["database-role"]}:username::" },
      { name = "PGPASSWORD", valueFrom = "${var.secret_arns["database-role"]}:password::" },
    ],
    var.mail ? [{ name = "INSFORGE_MAIL_SMTP_URL", valueFrom = var.secret_arns["smtp-url"] }] : [],
  )

  log_options = {
    for name, group in aws_cloudwatch_log_group.this : name => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = group.name
        awslogs-region        = local.region
        awslogs-stream-prefix = name
        # A log that CloudWatch does not take must not stop the process: it drops the oldest lines instead.
        mode            = "non-blocking"
        max-buffer-size = "16m"
      }
    }
  }

  # What every container of the server has in common. The file system is read-only; /tmp is the task's own.
  server = {
    essential              = true
    user                   = "10001:10001"
    readonlyRootFilesystem = true
    environment            = local.environment
    secrets                = local.secrets
    mountPoints            = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    # Longer than worker.drain, and than the API waits for open calls.
    stopTimeout = 90
  }

  health_check = {
    command     = ["CMD", "/usr/local/bin/healthcheck"]
    interval    = 15
    timeout     = 5
    retries     = 3
    startPeriod = 30
  }
}

# ---- TLS and name ----------------------------------------------------------------------------------------------------

resource "aws_acm_certificate" "this" {
  domain_name       = var.domain
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = {
    for option in aws_acm_certificate.this.domain_validation_options : option.domain_name => option
  }

  zone_id         = var.zone_id
  name            = each.value.resource_record_name
  type            = each.value.resource_record_type
  records         = [each.value.resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

resource "aws_route53_record" "api" {
  zone_id = var.zone_id
  name    = var.domain
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}

# ---- Load balancer ---------------------------------------------------------------------------------------------------

resource "aws_security_group" "balancer" {
  name        = "${var.name}-api-balancer"
  description = "Load balancer of the API"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-api-balancer" }
}

resource "aws_vpc_security_group_ingress_rule" "web" {
  for_each = toset(["80", "443"])

  security_group_id = aws_security_group.balancer.id
  description       = "Web, from everybody"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "The API"
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
  referenced_security_group_id = aws_security_group.tasks.id
}

resource "aws_lb" "this" {
  name                       = "${var.name}-api"
  load_balancer_type         = "application"
  subnets                    = var.public_subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  # Above the longest wait of the API: 60 s for wait_for_completion, 30 s for agents. No access log: the API logs each
  # request itself, and without the query, which may hold a code that signs somebody in.
  idle_timeout = 120
}

resource "aws_lb_target_group" "api" {
  name        = "${var.name}-api"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "HTTP"
  port        = 8080
  # As long as the longest wait.
  deregistration_delay = 75

  # Something that the API answers without its database: when that is away, every task is as good as the next, and to
  # replace them all would only add to the trouble. (`serve` opens its port once it has seen the database.)
  health_check {
    path                = "/.well-known/oauth-authorization-server"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

# ---- Cluster ---------------------------------------------------------------------------------------------------------

resource "aws_security_group" "tasks" {
  name        = "${var.name}-tasks"
  description = "API, worker and one-off tasks"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-tasks" }
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "The load balancer"
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
  referenced_security_group_id = aws_security_group.balancer.id
}

# AWS, projects' backends and their Postgres, partners' webhooks, mail servers.
resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  description       = "Everywhere"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["api", "worker", "migrate", "operator", "database", "metrics"])

  name              = "/insforge/${var.name}/${each.key}"
  retention_in_days = var.log_days
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }

  # What an operator types and sees in a shell is not logged: commands there show secrets, once. CloudTrail has who
  # opened the shell, and the control plane's own audit log what was done.
  configuration {
    execute_command_configuration {
      logging = "NONE"
    }
  }
}

# ---- API -------------------------------------------------------------------------------------------------------------

resource "aws_ecs_task_definition" "api" {
  family                   = "${var.name}-api"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.api.cpu
  memory                   = var.api.memory
  execution_role_arn       = var.roles.execution
  task_role_arn            = var.roles.api

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    merge(local.server, {
      name             = "api"
      image            = var.image
      command          = ["serve"]
      healthCheck      = local.health_check
      portMappings     = [{ containerPort = 8080 }]
      logConfiguration = local.log_options["api"]
    }),
  ])
}

# Not there at all unless it runs: the number of its tasks is for the scaling below to say, so it cannot be set to 0 here.
resource "aws_ecs_service" "api" {
  count = var.running ? 1 : 0

  name            = "api"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.api.arn
  desired_count   = var.api.min
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"

  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60

  # A release whose tasks do not come up is taken back.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.tasks.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.api.arn
    container_name   = "api"
    container_port   = 8080
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.https]
}

resource "aws_appautoscaling_target" "api" {
  count = var.running ? 1 : 0

  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.api[0].name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.api.min
  max_capacity       = var.api.max
}

resource "aws_appautoscaling_policy" "api" {
  count = var.running ? 1 : 0

  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.api[0].service_namespace
  resource_id        = aws_appautoscaling_target.api[0].resource_id
  scalable_dimension = aws_appautoscaling_target.api[0].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value = 60

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

# ---- Worker ----------------------------------------------------------------------------------------------------------

locals {
  # Queue and pool come from the database, so that every worker tells the same; alarms take the maximum.
  collector_configuration = yamlencode({
    receivers = {
      prometheus = {
        config = {
          scrape_configs = [{
            job_name        = "insforge"
            scrape_interval = "60s"
            # A label that every series has: the collector drops series without dimensions.
            static_configs = [{ targets = [local.metrics], labels = { deployment = var.name } }]
          }]
        }
      }
    }
    processors = {
      # CloudWatch charges per metric: what alarms need and operators look at, and no more.
      filter = {
        metrics = {
          include = {
            match_type = "strict"
            metric_names = [
              "backups_oldest_due_seconds",
              "insforge_database_up",
              "insforge_operations",
              "insforge_operations_oldest_due_seconds",
              "insforge_pool_machines",
              "machines_reconciled_total",
            ]
          }
        }
      }
    }
    exporters = {
      awsemf = {
        namespace               = "InsForge/${var.name}"
        region                  = local.region
        log_group_name          = aws_cloudwatch_log_group.this["metrics"].name
        log_stream_name         = "worker"
        dimension_rollup_option = "NoDimensionRollup"
        # Beginnings of names; a $ at their end would be taken for a variable.
        metric_declarations = [
          {
            dimensions = [["deployment"]]
            metric_name_selectors = [
              "^backups_oldest_due_seconds",
              "^insforge_database_up",
              "^insforge_operations_oldest_due_seconds",
            ]
          },
          {
            dimensions            = [["deployment", "state"]]
            metric_name_selectors = ["^insforge_operations"]
          },
          {
            dimensions            = [["deployment", "region", "instance_type", "state"]]
            metric_name_selectors = ["^insforge_pool_machines"]
          },
          {
            dimensions            = [["deployment", "action"]]
            metric_name_selectors = ["^machines_reconciled_total"]
          },
        ]
      }
    }
    service = {
      pipelines = {
        metrics = {
          receivers  = ["prometheus"]
          processors = ["filter"]
          exporters  = ["awsemf"]
        }
      }
    }
  })
}

data "aws_iam_policy_document" "metrics" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this["metrics"].arn}:*"]
  }
}

# The collector runs in the worker's task, so it has the worker's role.
resource "aws_iam_role_policy" "metrics" {
  name   = "metrics"
  role   = var.roles.worker_name
  policy = data.aws_iam_policy_document.metrics.json
}

resource "aws_ecs_task_definition" "worker" {
  family                   = "${var.name}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.worker.cpu
  memory                   = var.worker.memory
  execution_role_arn       = var.roles.execution
  task_role_arn            = var.roles.worker

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    merge(local.server, {
      name             = "worker"
      image            = var.image
      command          = ["work"]
      healthCheck      = local.health_check
      logConfiguration = local.log_options["worker"]
    }),
    {
      name              = "metrics"
      image             = var.collector_image
      essential         = false # the work goes on without its metrics
      memoryReservation = 128
      environment       = [{ name = "AOT_CONFIG_CONTENT", value = local.collector_configuration }]
      linuxParameters   = { capabilities = { drop = ["ALL"] } }
      logConfiguration  = local.log_options["worker"]
    },
  ])
}

resource "aws_ecs_service" "worker" {
  name            = "worker"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.worker.arn
  desired_count   = var.running && var.worker_running ? var.worker.tasks : 0
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"

  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.tasks.id]
  }
}

# ---- Tasks that are run when they are needed -------------------------------------------------------------------------

resource "aws_ecs_task_definition" "migrate" {
  family                   = "${var.name}-migrate"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  execution_role_arn       = var.roles.execution
  task_role_arn            = var.roles.api

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    merge(local.server, {
      name             = "migrate"
      image            = local.task_image
      command          = ["migrate"]
      logConfiguration = local.log_options["migrate"]
    }),
  ])
}

# A shell beside the control plane, for `insforge-cloud partner create`, `operation list` and the like. It ends by itself
# after an hour. ECS Exec puts its agent into the container, so this one may be written to.
resource "aws_ecs_task_definition" "operator" {
  family                   = "${var.name}-operator"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  execution_role_arn       = var.roles.execution
  task_role_arn            = var.roles.operator

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    merge(local.server, {
      name                   = "operator"
      image                  = local.task_image
      readonlyRootFilesystem = false
      linuxParameters        = { initProcessEnabled = true }
      entryPoint             = ["/bin/sleep"]
      command                = ["3600"]
      stopTimeout            = 5
      logConfiguration       = local.log_options["operator"]
    }),
  ])
}

locals {
  # Run as the master. Two login roles take turns, so that a password can be changed while both work; what they make
  # belongs to `insforge`, which neither logs in as (docs/rotate-keys.md).
  database_roles_sql = file("${path.module}/database-roles.sql")

  # psql reads these.
  database_environment = [
    { name = "PGHOST", value = var.database.address },
    { name = "PGPORT", value = tostring(var.database.port) },
    # The channel is encrypted; psql's image lacks RDS's certificates to check it against.
    { name = "PGSSLMODE", value = "require" },
  ]

  database_secrets = [
    { name = "PGUSER", valueFrom = "${var.database.master_secret_arn}:username::" },
    { name = "PGPASSWORD", valueFrom = "${var.database.master_secret_arn}:password::" },
    { name = "ROLE_NAME", valueFrom = "${var.secret_arns["database-role"]}:username::" },
    { name = "ROLE_PASSWORD", valueFrom = "${var.secret_arns["database-role"]}:password::" },
  ]
}

resource "aws_ecs_task_definition" "database_roles" {
  family                   = "${var.name}-database-roles"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = var.roles.execution_database

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name       = "database-roles"
    image      = var.postgres_image
    essential  = true
    user       = "nobody"
    entryPoint = ["/bin/sh", "-c"]
    command    = ["printf %s \"$ROLES_SQL\" | psql --no-psqlrc --quiet --dbname=postgres"]
    environment = concat(local.database_environment, [
      { name = "ROLES_SQL", value = local.database_roles_sql },
    ])
    secrets          = local.database_secrets
    linuxParameters  = { capabilities = { drop = ["ALL"] } }
    logConfiguration = local.log_options["database"]
  }])
}

# A psql for the worst days, as the role that owns the tables. Ends by itself after an hour.
resource "aws_ecs_task_definition" "psql" {
  family                   = "${var.name}-psql"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = var.roles.execution
  task_role_arn            = var.roles.operator

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name            = "psql"
    image           = var.postgres_image
    essential       = true
    entryPoint      = ["/bin/sleep"]
    command         = ["3600"]
    stopTimeout     = 5
    linuxParameters = { initProcessEnabled = true }
    environment     = concat(local.database_environment, [{ name = "PGDATABASE", value = "insforge" }])
    secrets = [
      { name = "PGUSER", valueFrom = "${var.secret_arns["database-role"]}:username::" },
      { name = "PGPASSWORD", valueFrom = "${var.secret_arns["database-role"]}:password::" },
    ]
    logConfiguration = local.log_options["database"]
  }])
}
