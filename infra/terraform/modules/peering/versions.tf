terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"

      # `aws` is of the workers' region, this one of the machines'.
      configuration_aliases = [aws.machines]
    }
  }
}
