// Package terraform proves homelab-iac/terraform: its own tests, the plans that Terraform really makes of it, and the settings of the
// buckets on a real S3 server. All of it is behind the build tag prove.
package terraform
