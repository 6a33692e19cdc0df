# The buckets: what guards the backups, asserted word by word.
mock_provider "aws" {}

variables {
  name              = "example-slow"
  lock_days         = 30
  old_versions_days = 60
  cold              = true
  admin_role        = "arn:aws:iam::123456789012:role/homelab-admin"
}

run "the_slow_bucket" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  assert {
    condition     = aws_s3_bucket.this.object_lock_enabled && !aws_s3_bucket.this.force_destroy
    error_message = "The bucket can lock objects, and a destroy does not empty it."
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "Versions are kept."
  }
  assert {
    condition     = aws_s3_bucket_object_lock_configuration.this.rule[0].default_retention[0].days == 30 && aws_s3_bucket_object_lock_configuration.this.rule[0].default_retention[0].mode == "GOVERNANCE"
    error_message = "New objects are locked for 30 days."
  }
  assert {
    condition     = alltrue([for r in aws_s3_bucket_lifecycle_configuration.this.rule : alltrue([for e in r.expiration : e.expired_object_delete_marker])])
    error_message = "No rule takes an object that is in use: S3 takes either a number of days or the marker of deleted objects."
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.this.rule[0].noncurrent_version_expiration[0].noncurrent_days == 60
    error_message = "Old versions stay for 60 days."
  }
  assert {
    condition = (
      aws_s3_bucket_lifecycle_configuration.this.rule[1].filter[0].and[0].prefix == "restic/data/" &&
      aws_s3_bucket_lifecycle_configuration.this.rule[1].filter[0].and[0].object_size_greater_than == 131072 &&
      one(aws_s3_bucket_lifecycle_configuration.this.rule[1].transition).storage_class == "GLACIER_IR" &&
      one(aws_s3_bucket_lifecycle_configuration.this.rule[1].transition).days == 0
    )
    error_message = "Packs, and nothing else, move to Glacier Instant Retrieval on the first day."
  }
  assert {
    condition     = alltrue([for b in ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"] : aws_s3_bucket_public_access_block.this[b]])
    error_message = "All four blocks of public access are on."
  }
  assert {
    condition     = aws_s3_bucket_ownership_controls.this.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "Access lists do not count."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "S3 encrypts."
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_s3_bucket_policy.this.policy).Statement : s.Effect == "Deny"])
    error_message = "The bucket's policy lets nobody in; it only denies."
  }
  assert {
    condition     = anytrue([for s in jsondecode(aws_s3_bucket_policy.this.policy).Statement : s.Principal == "*" && try(s.Condition.Bool["aws:SecureTransport"], "") == "false"])
    error_message = "Plain HTTP is denied to everybody."
  }
}

run "the_four_keys" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  assert {
    condition     = toset(keys(aws_iam_user.key)) == toset(["backup", "maintenance", "plan", "restore"])
    error_message = "There are four keys."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_user_policy.key["backup"].policy).Statement : s.Resource if contains(s.Action, "s3:DeleteObject")] == [["arn:aws:s3:::example-slow/restic/locks/*"]]
    error_message = "The backup key deletes its locks and nothing else."
  }
  assert {
    condition     = alltrue([for name in ["restore", "plan"] : alltrue([for a in flatten([for s in jsondecode(aws_iam_user_policy.key[name].policy).Statement : s.Action]) : startswith(a, "s3:Get") || startswith(a, "s3:List")])])
    error_message = "The restore key and the plan key only read."
  }
  assert {
    condition     = !contains(flatten([for s in jsondecode(aws_iam_user_policy.key["plan"].policy).Statement : s.Action]), "s3:GetObject")
    error_message = "The plan key sees settings and no object."
  }
  assert {
    condition     = alltrue([for p in aws_iam_user_policy.key : alltrue([for a in flatten([for s in jsondecode(p.policy).Statement : s.Action]) : !strcontains(a, "*") && !strcontains(a, "Version\"") && a != "s3:DeleteObjectVersion" && !startswith(a, "iam:")])])
    error_message = "No key may delete versions, use wildcards, or touch users."
  }
  assert {
    condition     = length(aws_iam_access_key.key) == 0
    error_message = "Without a PGP key no secret gets into the state."
  }
}

run "the_fast_bucket_is_not_cold" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  variables {
    lock_days         = 14
    old_versions_days = 30
    cold              = false
  }

  assert {
    condition     = length(aws_s3_bucket_lifecycle_configuration.this.rule) == 1
    error_message = "Nothing moves to a colder class."
  }
}

run "secrets_are_encrypted_for_a_person" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  variables {
    pgp_key = "bm90IGEga2V5"
  }

  assert {
    condition     = alltrue([for k in aws_iam_access_key.key : k.pgp_key == "bm90IGEga2V5"]) && length(aws_iam_access_key.key) == 4
    error_message = "Each key's secret is encrypted."
  }
}

run "a_short_lock_is_refused" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  variables {
    lock_days = 7
  }

  expect_failures = [var.lock_days]
}

run "versions_that_go_before_their_lock_are_refused" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  variables {
    lock_days         = 45
    old_versions_days = 40
  }

  expect_failures = [aws_s3_bucket_lifecycle_configuration.this]
}

run "any_role_as_administrator_is_refused" {
  command = plan

  module {
    source = "./modules/backup_bucket"
  }

  variables {
    admin_role = "arn:aws:iam::123456789012:role/*"
  }

  expect_failures = [var.admin_role]
}
