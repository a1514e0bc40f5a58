# Alarms, and who hears of them. Each says in its description what to read next.

locals {
  # What alarms have in common, by name:
  #   namespace, metric, statistic or percentile, dimensions, for how many minutes, what is too much or too little
  alarms = {
    "api-errors" = {
      description = "The API answers with errors (5xx). Look into its log by request id; docs/stuck-operation.md."
      namespace   = "AWS/ApplicationELB"
      metric      = "HTTPCode_Target_5XX_Count"
      statistic   = "Sum"
      dimensions  = { LoadBalancer = var.load_balancer, TargetGroup = var.target_group }
      minutes     = 5
      above       = 10
      below       = null
      missing     = "notBreaching"
    }
    "api-unreachable" = {
      description = "The load balancer itself answers with errors (5xx): no task takes requests."
      namespace   = "AWS/ApplicationELB"
      metric      = "HTTPCode_ELB_5XX_Count"
      statistic   = "Sum"
      dimensions  = { LoadBalancer = var.load_balancer }
      minutes     = 2
      above       = 10
      below       = null
      missing     = "notBreaching"
    }
    "api-tasks" = {
      description = "Fewer API tasks run than should. `aws ecs describe-services` tells why."
      namespace   = "ECS/ContainerInsights"
      metric      = "RunningTaskCount"
      statistic   = "Minimum"
      dimensions  = { ClusterName = var.cluster, ServiceName = "api" }
      minutes     = 10
      above       = null
      below       = var.api_tasks
      missing     = "breaching"
    }
    "worker-tasks" = {
      description = "Fewer workers run than should. `aws ecs describe-services` tells why."
      namespace   = "ECS/ContainerInsights"
      metric      = "RunningTaskCount"
      statistic   = "Minimum"
      dimensions  = { ClusterName = var.cluster, ServiceName = "worker" }
      minutes     = 10
      above       = null
      below       = var.worker_tasks
      missing     = "breaching"
    }
    "work-waits" = {
      description = "An operation has been due for five minutes and no worker takes it, or no worker tells. docs/stuck-operation.md."
      namespace   = var.metrics_namespace
      metric      = "insforge_operations_oldest_due_seconds"
      statistic   = "Maximum"
      dimensions  = { deployment = var.name }
      minutes     = 5
      above       = 300
      below       = null
      missing     = "breaching"
    }
    "backups-wait" = {
      description = "A daily backup has been due for six hours and had no place: let more of them run at once (worker.scheduled_backups). docs/stuck-operation.md."
      namespace   = var.metrics_namespace
      metric      = "backups_oldest_due_seconds"
      statistic   = "Maximum"
      dimensions  = { deployment = var.name }
      minutes     = 15
      above       = 21600
      below       = null
      missing     = "notBreaching"
    }
    "database-away" = {
      description = "Workers cannot reach the database. docs/restore-database.md."
      namespace   = var.metrics_namespace
      metric      = "insforge_database_up"
      statistic   = "Maximum"
      dimensions  = { deployment = var.name }
      minutes     = 3
      above       = null
      below       = 1
      missing     = "breaching"
    }
    "database-cpu" = {
      description = "The database's processor has been busy for a quarter of an hour. Database Insights in CloudWatch shows with what."
      namespace   = "AWS/RDS"
      metric      = "CPUUtilization"
      statistic   = "Average"
      dimensions  = { DBInstanceIdentifier = var.database.identifier }
      minutes     = 15
      above       = 80
      below       = null
      missing     = "breaching"
    }
    "database-disk" = {
      description = "The database's disk is nearly full, and RDS does not grow it any more: raise max_storage_gib."
      namespace   = "AWS/RDS"
      metric      = "FreeStorageSpace"
      statistic   = "Minimum"
      dimensions  = { DBInstanceIdentifier = var.database.identifier }
      minutes     = 10
      above       = null
      below       = var.database.min_free_gib * 1024 * 1024 * 1024
      missing     = "breaching"
    }
    "database-memory" = {
      description = "The database has little memory left: a larger instance_class, or fewer connections."
      namespace   = "AWS/RDS"
      metric      = "FreeableMemory"
      statistic   = "Minimum"
      dimensions  = { DBInstanceIdentifier = var.database.identifier }
      minutes     = 15
      above       = null
      below       = var.database.min_free_mib * 1024 * 1024
      missing     = "breaching"
    }
    "database-writes" = {
      description = "Writes to the database's disk are slow: every request that changes something waits for one."
      namespace   = "AWS/RDS"
      metric      = "WriteLatency"
      statistic   = "Average"
      dimensions  = { DBInstanceIdentifier = var.database.identifier }
      minutes     = 10
      above       = var.database.max_latency_s
      below       = null
      missing     = "notBreaching"
    }
    "api-log-errors" = {
      description = "The API logged errors. In the log group: { $.level = \"ERROR\" }"
      namespace   = "InsForge/${var.name}/logs"
      metric      = "api-errors"
      statistic   = "Sum"
      dimensions  = {}
      minutes     = 5
      above       = 20
      below       = null
      missing     = "notBreaching"
    }
    # The worker logs an error for what needs a person: a project's machine is gone, a key cannot be opened.
    "worker-log-errors" = {
      description = "The worker logged an error. In the log group: { $.level = \"ERROR\" }. docs/stuck-operation.md."
      namespace   = "InsForge/${var.name}/logs"
      metric      = "worker-errors"
      statistic   = "Sum"
      dimensions  = {}
      minutes     = 5
      above       = 0
      below       = null
      missing     = "notBreaching"
    }
  }
}

# Not encrypted with a key of KMS: alarms cannot publish through AWS's own key, and their texts hold no secret.
resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "alarms" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = toset(var.emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_log_metric_filter" "errors" {
  for_each = { for name in ["api", "worker"] : name => var.log_groups[name] }

  name           = "errors"
  log_group_name = each.value
  pattern        = "{ $.level = \"ERROR\" }"

  metric_transformation {
    namespace = "InsForge/${var.name}/logs"
    name      = "${each.key}-errors"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  dimensions          = each.value.dimensions
  period              = 60
  evaluation_periods  = each.value.minutes
  comparison_operator = each.value.above != null ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = coalesce(each.value.above, each.value.below)
  treat_missing_data  = each.value.missing
  actions_enabled     = var.running
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_budgets_budget" "month" {
  count = var.monthly_budget_usd > 0 ? 1 : 0

  name         = "${var.name}-month"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  notification {
    notification_type          = "FORECASTED"
    comparison_operator        = "GREATER_THAN"
    threshold                  = 100
    threshold_type             = "PERCENTAGE"
    subscriber_email_addresses = var.emails
  }

  notification {
    notification_type          = "ACTUAL"
    comparison_operator        = "GREATER_THAN"
    threshold                  = 100
    threshold_type             = "PERCENTAGE"
    subscriber_email_addresses = var.emails
  }
}
