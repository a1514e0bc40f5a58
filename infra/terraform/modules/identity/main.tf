# Who may do what on AWS.
#
#   api        nothing: it speaks to the database alone
#   worker     machines with our tag, in our subnets; objects in our buckets
#   operator   what the worker may, for `doctor --aws`, and a shell into its own task
#   execution  what ECS needs to start a task: the image, the log, the secrets. Never in the hands of the program
#   standby    what the worker may, on an EC2 instance, for the day the region is gone
#   machine    nothing, unless `sessions_on_machines`: tenants' code runs there and can use it
#
# Without `tasks` (one server in place of ECS, infra/docker) there are the last two alone, and standby is that server's.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  regions   = [for region in var.machines : region.aws_region]

  # arn:aws:ec2:us-east-1:123456789012, once per region
  ec2 = [for region in local.regions : "arn:${local.partition}:ec2:${region}:${local.account}"]
  # Images belong to no account in their ARN.
  images = [for region in local.regions : "arn:${local.partition}:ec2:${region}::image/*"]

  image_owners = length(var.image_owners) > 0 ? var.image_owners : [local.account]
  machine_tag  = "insforge:managed"
  tasks        = var.tasks ? 1 : 0
}

data "aws_iam_policy_document" "tasks_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    # Only for tasks of this account: no other customer's ECS can be talked into using our roles.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# Without that condition: AWS documents it for the roles of tasks, not for those that start them.
data "aws_iam_policy_document" "execution_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# ---- Starting tasks --------------------------------------------------------------------------------------------------

resource "aws_iam_role" "execution" {
  count = local.tasks

  name               = "${var.name}-execution"
  description        = "Starts the control plane's tasks"
  assume_role_policy = data.aws_iam_policy_document.execution_trust.json
}

resource "aws_iam_role" "execution_database" {
  count = local.tasks

  name               = "${var.name}-execution-database"
  description        = "Starts the task that makes database roles"
  assume_role_policy = data.aws_iam_policy_document.execution_trust.json
}

data "aws_iam_policy_document" "start" {
  count = local.tasks

  statement {
    sid       = "SignInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # takes no other
  }

  statement {
    sid       = "PullImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [var.repository_arn]
  }

  statement {
    sid       = "WriteLog"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["arn:${local.partition}:logs:*:${local.account}:log-group:/insforge/${var.name}/*"]
  }
}

data "aws_iam_policy_document" "read_secrets" {
  count = local.tasks

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = var.secret_arns
  }
}

data "aws_iam_policy_document" "read_master_secret" {
  count = local.tasks

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = concat([var.master_secret_arn], var.secret_arns)
  }
}

resource "aws_iam_role_policy" "execution_start" {
  count = local.tasks

  name   = "start"
  role   = aws_iam_role.execution[0].name
  policy = data.aws_iam_policy_document.start[0].json
}

resource "aws_iam_role_policy" "execution_secrets" {
  count = local.tasks

  name   = "secrets"
  role   = aws_iam_role.execution[0].name
  policy = data.aws_iam_policy_document.read_secrets[0].json
}

resource "aws_iam_role_policy" "execution_database_start" {
  count = local.tasks

  name   = "start"
  role   = aws_iam_role.execution_database[0].name
  policy = data.aws_iam_policy_document.start[0].json
}

resource "aws_iam_role_policy" "execution_database_secrets" {
  count = local.tasks

  name   = "secrets"
  role   = aws_iam_role.execution_database[0].name
  policy = data.aws_iam_policy_document.read_master_secret[0].json
}

# ---- API -------------------------------------------------------------------------------------------------------------

resource "aws_iam_role" "api" {
  count = local.tasks

  name               = "${var.name}-api"
  description        = "The API: links to backups"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

# A link may do what whoever signs it may do.
data "aws_iam_policy_document" "backups" {
  statement {
    sid       = "Backups"
    actions   = ["s3:GetObject"]
    resources = [for bucket in var.bucket_arns : "${bucket}/projects/*/backups/*"]
  }
}

resource "aws_iam_role_policy" "api_backups" {
  count = local.tasks

  name   = "backups"
  role   = aws_iam_role.api[0].name
  policy = data.aws_iam_policy_document.backups.json
}

# ---- Worker ----------------------------------------------------------------------------------------------------------

resource "aws_iam_role" "worker" {
  count = local.tasks

  name               = "${var.name}-worker"
  description        = "The worker: machines and objects"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

data "aws_iam_policy_document" "machines" {
  # None of these takes a resource; the regions are all that can be said.
  statement {
    sid = "Look"
    actions = [
      "ec2:DescribeImages",
      "ec2:DescribeInstanceStatus",
      "ec2:DescribeInstances",
      "ec2:DescribeVolumes",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = local.regions
    }
  }

  # RunInstances is asked about each thing that a launch makes or uses. A key pair and a launch template are not in
  # these lists, so a launch with one is refused.
  statement {
    sid       = "LaunchTaggedInstances"
    actions   = ["ec2:RunInstances"]
    resources = [for ec2 in local.ec2 : "${ec2}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.machine_tag}"
      values   = [var.name]
    }

    # IMDSv2, whatever the caller forgot.
    condition {
      test     = "StringEquals"
      variable = "ec2:MetadataHttpTokens"
      values   = ["required"]
    }

    condition {
      test     = "ArnEquals"
      variable = "ec2:InstanceProfile"
      values   = [aws_iam_instance_profile.machine.arn]
    }
  }

  statement {
    sid       = "LaunchWithTaggedEncryptedVolumes"
    actions   = ["ec2:RunInstances"]
    resources = [for ec2 in local.ec2 : "${ec2}:volume/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.machine_tag}"
      values   = [var.name]
    }

    condition {
      test     = "Bool"
      variable = "ec2:Encrypted"
      values   = ["true"]
    }
  }

  statement {
    sid       = "LaunchFromOurImages"
    actions   = ["ec2:RunInstances"]
    resources = local.images

    condition {
      test     = "StringEquals"
      variable = "ec2:Owner"
      values   = local.image_owners
    }
  }

  statement {
    sid     = "LaunchInOurNetworks"
    actions = ["ec2:RunInstances"]
    resources = concat(
      flatten([for region in var.machines : concat(region.subnet_arns, region.security_group_arns)]),
      [for ec2 in local.ec2 : "${ec2}:network-interface/*"],
    )
  }

  # Tags are what all that follows asks for, so they may be given by a launch and never later: else one could tag
  # somebody else's instance, and then terminate it.
  statement {
    sid       = "TagWhatIsLaunched"
    actions   = ["ec2:CreateTags"]
    resources = flatten([for ec2 in local.ec2 : ["${ec2}:instance/*", "${ec2}:volume/*"]])

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.machine_tag}"
      values   = [var.name]
    }
  }

  statement {
    sid = "ChangeOurs"
    actions = [
      "ec2:DeleteVolume",
      "ec2:ModifyInstanceAttribute",
      "ec2:ModifyVolume",
      "ec2:StartInstances",
      "ec2:StopInstances",
      "ec2:TerminateInstances",
    ]
    resources = flatten([for ec2 in local.ec2 : ["${ec2}:instance/*", "${ec2}:volume/*"]])

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/${local.machine_tag}"
      values   = [var.name]
    }
  }

  # Hands machines their own role, and no other.
  statement {
    sid       = "GiveMachinesTheirRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.machine.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "objects" {
  # What `doctor` tries, and no more. Not DeleteObjectVersion: what a fault or a thief deletes can be brought back (module
  # `objects`).
  statement {
    sid = "Objects"
    actions = [
      "s3:AbortMultipartUpload",
      "s3:DeleteObject",
      "s3:GetObject",
      "s3:PutObject",
    ]
    resources = [for bucket in var.bucket_arns : "${bucket}/*"]
  }

  statement {
    sid       = "Buckets"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = var.bucket_arns
  }
}

# Policies of their own, since worker and operator share them.
resource "aws_iam_policy" "machines" {
  name        = "${var.name}-machines"
  description = "Machines of the deployment ${var.name}"
  policy      = data.aws_iam_policy_document.machines.json
}

resource "aws_iam_policy" "objects" {
  name        = "${var.name}-objects"
  description = "Objects of the deployment ${var.name}"
  policy      = data.aws_iam_policy_document.objects.json
}

resource "aws_iam_role_policy_attachment" "worker_machines" {
  count = local.tasks

  role       = aws_iam_role.worker[0].name
  policy_arn = aws_iam_policy.machines.arn
}

resource "aws_iam_role_policy_attachment" "worker_objects" {
  count = local.tasks

  role       = aws_iam_role.worker[0].name
  policy_arn = aws_iam_policy.objects.arn
}

# ---- Operator --------------------------------------------------------------------------------------------------------

resource "aws_iam_role" "operator" {
  count = local.tasks

  name               = "${var.name}-operator"
  description        = "An operator's shell beside the control plane"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

# The four calls of ECS Exec; they take no resource.
data "aws_iam_policy_document" "shell" {
  statement {
    actions = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "operator_shell" {
  count = local.tasks

  name   = "shell"
  role   = aws_iam_role.operator[0].name
  policy = data.aws_iam_policy_document.shell.json
}

resource "aws_iam_role_policy_attachment" "operator_machines" {
  count = local.tasks

  role       = aws_iam_role.operator[0].name
  policy_arn = aws_iam_policy.machines.arn
}

resource "aws_iam_role_policy_attachment" "operator_objects" {
  count = local.tasks

  role       = aws_iam_role.operator[0].name
  policy_arn = aws_iam_policy.objects.arn
}

# ---- Standby ---------------------------------------------------------------------------------------------------------

# For an EC2 instance that carries the control plane: always where there are no tasks, and on the day its region is gone
# (docs/region-outage.md). It is made beforehand, since IAM takes changes in one region only, which may be the one that
# is gone.
data "aws_iam_policy_document" "standby_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "standby" {
  name               = "${var.name}-standby"
  description        = "The control plane on one EC2 instance, in an outage"
  assume_role_policy = data.aws_iam_policy_document.standby_trust.json
}

resource "aws_iam_instance_profile" "standby" {
  name = "${var.name}-standby"
  role = aws_iam_role.standby.name
}

data "aws_iam_policy_document" "standby" {
  # Copies of the secrets have the same names in other regions.
  statement {
    sid       = "ReadSecrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = ["arn:${local.partition}:secretsmanager:*:${local.account}:secret:${var.name}/*"]
  }

  # A shell for the operator, who gets in by Session Manager.
  statement {
    sid = "Shell"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "standby" {
  name   = "standby"
  role   = aws_iam_role.standby.name
  policy = data.aws_iam_policy_document.standby.json
}

resource "aws_iam_role_policy_attachment" "standby_machines" {
  role       = aws_iam_role.standby.name
  policy_arn = aws_iam_policy.machines.arn
}

resource "aws_iam_role_policy_attachment" "standby_objects" {
  role       = aws_iam_role.standby.name
  policy_arn = aws_iam_policy.objects.arn
}

# ---- Machines --------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "machine_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "machine" {
  name               = "${var.name}-machine"
  description        = "A project's machine; tenants' code can use it"
  assume_role_policy = data.aws_iam_policy_document.machine_trust.json
}

resource "aws_iam_instance_profile" "machine" {
  name = "${var.name}-machine"
  role = aws_iam_role.machine.name
}

# Much less than AWS's own AmazonSSMManagedInstanceCore, which lets a machine read every parameter of the account.
data "aws_iam_policy_document" "sessions" {
  statement {
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "sessions" {
  count = var.sessions_on_machines ? 1 : 0

  name   = "sessions"
  role   = aws_iam_role.machine.name
  policy = data.aws_iam_policy_document.sessions.json
}
