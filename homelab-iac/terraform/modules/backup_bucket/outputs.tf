output "repository" {
  description = "The repository as restic writes it."
  value       = "s3:https://s3.${aws_s3_bucket.this.region}.amazonaws.com/${var.name}/${var.repository}"
}

output "keys" {
  description = "The access keys by what they may do: the ID, and the secret encrypted with pgp_key."
  value       = { for name, k in aws_iam_access_key.key : name => { id = k.id, encrypted_secret = k.encrypted_secret } }
}

# What the lab applies to a real S3 server and proves there (test/terraform).
output "rendered" {
  description = "The settings as the bucket gets them: policy, policies of the keys, lock and lifecycle."
  value = {
    bucket            = var.name
    repository        = var.repository
    policy            = local.bucket_policy
    key_policies      = local.key_policies
    versioning        = aws_s3_bucket_versioning.this.versioning_configuration[0].status
    lock_mode         = local.lock_mode
    lock_days         = var.lock_days
    old_versions_days = var.old_versions_days
    cold_prefix       = var.cold ? "${var.repository}/data/" : ""
  }
}
