#!/bin/sh
# The entrypoint of the postgres container, as root. machine.conf holds the key that Postgres
# decrypts with: on the command line, where the release has it, every process of the machine could
# read it. The copy is for the user that the image's own entrypoint changes to.
set -eu
install -o postgres -g postgres -m 0400 /etc/insforge/machine.conf /var/lib/postgresql/machine.conf
exec docker-entrypoint.sh "$@"
