locals {
  # Denials count whatever a key is allowed elsewhere.
  bucket_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EncryptedLinesOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "OnlyTheAdministratorChangesWhatGuards"
        Effect    = "Deny"
        Principal = "*"
        Action = [
          "s3:DeleteBucket",
          "s3:DeleteBucketPolicy",
          "s3:PutBucketAcl",
          "s3:PutBucketObjectLockConfiguration",
          "s3:PutBucketOwnershipControls",
          "s3:PutBucketPolicy",
          "s3:PutBucketPublicAccessBlock",
          "s3:PutBucketVersioning",
          "s3:PutEncryptionConfiguration",
          "s3:PutLifecycleConfiguration",
        ]
        Resource  = local.bucket_arn
        Condition = { ArnNotLike = { "aws:PrincipalArn" = var.admin_role } }
      },
      {
        Sid       = "OnlyTheAdministratorDeletesForGood"
        Effect    = "Deny"
        Principal = "*"
        Action = [
          "s3:BypassGovernanceRetention",
          "s3:DeleteObjectVersion",
          "s3:PutObjectLegalHold",
          "s3:PutObjectRetention",
        ]
        Resource  = "${local.bucket_arn}/*"
        Condition = { ArnNotLike = { "aws:PrincipalArn" = var.admin_role } }
      },
    ]
  })

  # What each key may do. restic uploads whole objects and never removes a failed one, so the backup key deletes nothing but its locks.
  look = {
    Sid      = "Look"
    Effect   = "Allow"
    Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
    Resource = [local.bucket_arn]
  }
  read = {
    Sid      = "Read"
    Effect   = "Allow"
    Action   = ["s3:GetObject"]
    Resource = ["${local.bucket_arn}/${var.repository}/*"]
  }
  write = {
    Sid      = "Write"
    Effect   = "Allow"
    Action   = ["s3:PutObject"]
    Resource = ["${local.bucket_arn}/${var.repository}/*"]
  }
  unlock = {
    Sid      = "RemoveItsLocks"
    Effect   = "Allow"
    Action   = ["s3:DeleteObject"]
    Resource = ["${local.bucket_arn}/${var.repository}/locks/*"]
  }
  forget = {
    Sid      = "Forget"
    Effect   = "Allow"
    Action   = ["s3:DeleteObject"] # adds a marker; versions are out of reach
    Resource = ["${local.bucket_arn}/${var.repository}/*"]
  }
  settings = {
    Sid    = "ReadTheSettings"
    Effect = "Allow"
    Action = [
      "s3:GetBucketAcl",
      "s3:GetBucketCORS",
      "s3:GetBucketLocation",
      "s3:GetBucketLogging",
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketOwnershipControls",
      "s3:GetBucketPolicy",
      "s3:GetBucketPublicAccessBlock",
      "s3:GetBucketRequestPayment",
      "s3:GetBucketTagging",
      "s3:GetBucketVersioning",
      "s3:GetBucketWebsite",
      "s3:GetAccelerateConfiguration",
      "s3:GetEncryptionConfiguration",
      "s3:GetLifecycleConfiguration",
      "s3:GetReplicationConfiguration",
      "s3:ListBucket",
    ]
    Resource = [local.bucket_arn]
  }

  keys = {
    backup      = [local.look, local.read, local.write, local.unlock]
    maintenance = [local.look, local.read, local.write, local.forget]
    restore     = [local.look, local.read]
    plan        = [local.settings]
  }
  key_policies = { for name, statements in local.keys : name => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}
