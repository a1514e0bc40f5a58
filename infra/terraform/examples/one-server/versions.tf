terraform {
  # 1.10 brought locks of the state in S3 itself.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  # Filled in by backend.hcl (docs/deploy.md): terraform init -backend-config=backend.hcl
  backend "s3" {}
}

provider "aws" {
  region              = "us-east-1"
  allowed_account_ids = [var.account_id]

  # Not the tag insforge:managed: that one is the worker's, and what has it, the worker may terminate.
  default_tags {
    tags = {
      "insforge:deployment" = var.name
      "insforge:made-by"    = "terraform"
    }
  }
}
