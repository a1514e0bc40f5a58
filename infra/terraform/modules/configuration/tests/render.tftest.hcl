# What the processes get to read, letter by letter. Run: terraform test (needs no provider and no account).

variables {
  name             = "acme"
  domain           = "api.example.com"
  database         = { address = "db.example.com", port = 5432 }
  access_host      = "https://{app_key}-{address_label}.{region}.example-apps.com"
  instance_profile = "acme-machine"
  mail_from        = "Acme <no-reply@example.com>"

  machines = [
    {
      region          = "us-east"
      aws_region      = "us-east-1"
      subnets         = ["subnet-a", "subnet-b"]
      security_groups = ["sg-a"]
      image           = "ami-0123456789abcdef0"
      instance_types  = { nano = ["t3.small", "t3a.small"], "2xl" = ["m6i.8xlarge"] }
    },
    {
      region          = "us-west"
      aws_region      = "us-west-2"
      subnets         = ["subnet-c"]
      security_groups = ["sg-b"]
      image_owner     = "self"
      image_name      = "insforge-machine-*"
      instance_types  = { nano = ["t3.small"] }
    },
  ]

  buckets = [{ region = "us-east", aws_region = "us-east-1", bucket = "acme-objects" }]
  pool    = [{ region = "us-east", instance_type = "nano", floor = 2, ceiling = 20 }]
}

run "lists_are_toml" {
  command = plan

  assert {
    condition = output.environment.INSFORGE_EC2_REGIONS == join("", [
      "[{region=\"us-east\",aws_region=\"us-east-1\",subnets=[\"subnet-a\",\"subnet-b\"],security_groups=[\"sg-a\"],",
      "image=\"ami-0123456789abcdef0\",instance_types={2xl=[\"m6i.8xlarge\"],nano=[\"t3.small\",\"t3a.small\"]}},",
      "{region=\"us-west\",aws_region=\"us-west-2\",subnets=[\"subnet-c\"],security_groups=[\"sg-b\"],",
      "image_owner=\"self\",image_name=\"insforge-machine-*\",instance_types={nano=[\"t3.small\"]}}]",
    ])
    error_message = output.environment.INSFORGE_EC2_REGIONS
  }

  assert {
    condition     = output.environment.INSFORGE_OBJECTS_BUCKETS == "[{region=\"us-east\",aws_region=\"us-east-1\",bucket=\"acme-objects\"}]"
    error_message = output.environment.INSFORGE_OBJECTS_BUCKETS
  }

  assert {
    condition     = output.environment.INSFORGE_POOL_TARGETS == "[{region=\"us-east\",instance_type=\"nano\",floor=2,ceiling=20}]"
    error_message = output.environment.INSFORGE_POOL_TARGETS
  }

  assert {
    condition     = output.environment.INSFORGE_DATABASE_URL == "postgres://db.example.com:5432/insforge?sslmode=verify-full&sslrootcert=/usr/share/insforge/rds-ca.pem"
    error_message = output.environment.INSFORGE_DATABASE_URL
  }
}

run "the_file_says_the_same" {
  command = plan

  assert {
    condition = alltrue([for line in [
      "provider = \"ec2\"",
      "deployment = \"acme\"",
      "orphans = \"terminate\"",
      "  {region=\"us-west\",aws_region=\"us-west-2\",subnets=[\"subnet-c\"],security_groups=[\"sg-b\"],image_owner=\"self\",image_name=\"insforge-machine-*\",instance_types={nano=[\"t3.small\"]}},",
      "  {region=\"us-east\",aws_region=\"us-east-1\",bucket=\"acme-objects\"},",
      "  {region=\"us-east\",instance_type=\"nano\",floor=2,ceiling=20},",
      "from = \"Acme <no-reply@example.com>\"",
    ] : contains(split("\n", output.toml), line)])
    error_message = output.toml
  }
}

run "one_server_has_its_own_database" {
  command = plan

  variables {
    database = null
  }

  assert {
    condition     = !contains(keys(output.environment), "INSFORGE_DATABASE_URL")
    error_message = "compose.yaml names the database's file; both at once are refused"
  }
}

run "no_log_filter_unless_one_is_given" {
  command = plan

  assert {
    condition     = !contains(keys(output.environment), "INSFORGE_LOG")
    error_message = "an empty filter would log nothing"
  }
}

run "an_empty_pool_is_an_empty_list" {
  command = plan

  variables {
    pool = []
  }

  assert {
    condition     = output.environment.INSFORGE_POOL_TARGETS == "[]"
    error_message = output.environment.INSFORGE_POOL_TARGETS
  }
}

run "a_region_names_one_image_or_one_search" {
  command = plan

  variables {
    machines = [{
      region          = "us-east"
      aws_region      = "us-east-1"
      subnets         = ["subnet-a"]
      security_groups = ["sg-a"]
      instance_types  = {}
    }]
  }

  expect_failures = [var.machines]
}

run "restored_databases_are_looked_at_first" {
  command = plan

  variables {
    orphans = "keep"
  }

  expect_failures = [var.orphans]
}

run "limits_are_the_programs_own_where_workers_reach_postgres" {
  command = plan

  assert {
    condition     = length([for key in keys(output.environment) : key if startswith(key, "INSFORGE_LIMITS_")]) == 0 && !strcontains(output.toml, "[limits]")
    error_message = output.toml
  }
}

run "no_branches_without_a_way_to_postgres" {
  command = plan

  variables {
    branches = false
  }

  assert {
    condition     = output.environment.INSFORGE_LIMITS_BRANCHES_PER_PARENT == "0"
    error_message = "the API would promise branches that cannot be made"
  }

  assert {
    condition     = strcontains(output.toml, "\n[limits]\nbranches_per_parent = 0\n\n[mail]\n")
    error_message = output.toml
  }
}
