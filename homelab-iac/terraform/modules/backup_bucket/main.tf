terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

locals {
  # Written out, so that policies are known when a plan is made and can be judged.
  bucket_arn = "arn:aws:s3:::${var.name}"
  lock_mode  = "GOVERNANCE"
}

resource "aws_s3_bucket" "this" {
  bucket              = var.name
  object_lock_enabled = true # can only be chosen when the bucket is made
  force_destroy       = false

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

# What a thief deletes or overwrites with a stolen key stays as an old version that nobody but the administrator can delete. restic
# works with it: it sends Content-MD5, and its own deletions only add markers.
resource "aws_s3_bucket_object_lock_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    default_retention {
      mode = local.lock_mode
      days = var.lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "old versions go"
    status = "Enabled"

    filter {
      prefix = ""
    }

    noncurrent_version_expiration {
      noncurrent_days = var.old_versions_days
    }

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # Packs move to Glacier Instant Retrieval on the first day; locks, index, keys, snapshots and the configuration never do: they are
  # small, are read all the time, and each would be billed for 90 days.
  dynamic "rule" {
    for_each = var.cold ? ["packs are cold"] : []

    content {
      id     = rule.value
      status = "Enabled"

      filter {
        and {
          prefix                   = "${var.repository}/data/"
          object_size_greater_than = 131072 # smaller ones are billed as if they had 128 KiB
        }
      }

      transition {
        days          = 0
        storage_class = "GLACIER_IR"
      }
    }
  }

  lifecycle {
    precondition {
      condition     = var.old_versions_days >= var.lock_days
      error_message = "Old versions are kept for at least as long as objects are locked: raise old_versions_days."
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket = aws_s3_bucket.this.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = local.bucket_policy

  # Once it stands, only the administrator changes the others.
  depends_on = [
    aws_s3_bucket_lifecycle_configuration.this,
    aws_s3_bucket_object_lock_configuration.this,
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_public_access_block.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
  ]
}
