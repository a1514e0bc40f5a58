# The image that projects' machines boot from: Ubuntu 24.04 with Docker, the release's images already there, and the agent.
#
#   docker build -f infra/docker/Dockerfile --target agent --output type=local,dest=target/image .
#   packer init infra/packer
#   packer build -var-file=infra/packer/production.pkrvars.hcl infra/packer
#
# docs/deploy.md has the whole story.

packer {
  required_version = ">= 1.10"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "region" {
  description = "Where the image is built: any region that has a default VPC."
  type        = string
  default     = "us-east-1"
}

variable "copy_to" {
  description = "Further regions of machines, which get a copy."
  type        = list(string)
  default     = []
}

variable "build_type" {
  description = "What it is built on. Nothing of that stays in the image but the architecture."
  type        = string
  default     = "t3.large"
}

variable "agent" {
  description = "The program insforge-agent, built for x86_64 Linux."
  type        = string
  default     = "target/image/insforge-agent"
}

variable "release_folder" {
  description = "Files of the release that the agent finds in /opt/insforge/release: functions/, and postgresql.conf, db-init.sql and jwt.sql if they shall differ from the agent's own. Without functions/ machines run no functions."
  type        = string
  default     = null
}

variable "release" {
  description = "The release whose image is pulled, as the agent names it: a tag of the image `insforge`."
  type        = string
  default     = "v2.3.1"

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.release))
    error_message = "The release must be a tag of an image, such as v2.3.1."
  }
}

variable "images" {
  description = "The images of the release, but for the tag of the first. As in the agent (runtime.images): what differs is pulled while somebody waits for a project."
  type        = list(string)
  default = [
    "ghcr.io/insforge/insforge-oss",
    "ghcr.io/insforge/postgres:v15.13.4",
    "postgrest/postgrest:v12.2.12",
    "denoland/deno:alpine-2.0.6",
  ]
}

variable "disk_gib" {
  description = "The image's disk. Machines are launched with 8 GiB or more, and AWS launches none that is smaller than its image."
  type        = number
  default     = 8

  validation {
    condition     = var.disk_gib >= 8
    error_message = "The disk must have 8 GiB or more: Ubuntu's own image has that."
  }
}

locals {
  built          = formatdate("YYYYMMDDhhmmss", timestamp())
  release_folder = coalesce(var.release_folder, "${path.root}/release")

  tags = {
    "Name"             = "insforge-machine"
    "insforge:release" = var.release
    "insforge:built"   = local.built
  }
}

source "amazon-ebs" "machine" {
  region        = var.region
  ami_regions   = var.copy_to
  ami_name      = "insforge-machine-${var.release}-${local.built}"
  instance_type = var.build_type

  source_ami_filter {
    owners      = ["099720109477"] # Canonical
    most_recent = true

    filters = {
      name                = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  # Machines of this image have version 2 of the metadata service, even when whoever launches them does not ask for it.
  imds_support = "v2.0"
  encrypt_boot = true

  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_type           = "gp3"
    volume_size           = var.disk_gib
    encrypted             = true
    delete_on_termination = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  communicator                              = "ssh"
  ssh_username                              = "ubuntu"
  temporary_key_pair_type                   = "ed25519"
  temporary_security_group_source_public_ip = true

  tags          = local.tags
  snapshot_tags = local.tags
  run_tags      = { "Name" = "insforge-machine-build" }
}

build {
  sources = ["source.amazon-ebs.machine"]

  provisioner "file" {
    source      = "${path.root}/files/"
    destination = "/tmp"
  }

  provisioner "file" {
    source      = var.agent
    destination = "/tmp/insforge-agent"
  }

  provisioner "shell" {
    inline = ["mkdir -p /tmp/release"]
  }

  provisioner "file" {
    source      = "${local.release_folder}/"
    destination = "/tmp/release"
  }

  provisioner "shell" {
    script          = "${path.root}/provision"
    execute_command = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"

    env = {
      RELEASE = var.release
      # The first has no tag: the release is its tag.
      IMAGES = join(" ", concat(["${var.images[0]}:${var.release}"], slice(var.images, 1, length(var.images))))
    }
  }

  post-processor "manifest" {
    output     = "${path.root}/packer-manifest.json"
    strip_path = true
  }
}
