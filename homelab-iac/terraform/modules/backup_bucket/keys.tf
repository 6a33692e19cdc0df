# Four keys, not one. None has a password for the console, and none may do anything with users.

resource "aws_iam_user" "key" {
  for_each = local.keys

  name = "${var.name}-${each.key}"
  path = "/homelab/"
}

resource "aws_iam_user_policy" "key" {
  for_each = local.keys

  name   = each.key
  user   = aws_iam_user.key[each.key].name
  policy = local.key_policies[each.key]
}

# The plan key also reads what Terraform knows of its users.
resource "aws_iam_user_policy" "plan_users" {
  name = "plan-users"
  user = aws_iam_user.key["plan"].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "ReadTheUsers"
      Effect   = "Allow"
      Action   = ["iam:GetUser", "iam:GetUserPolicy", "iam:ListAccessKeys"]
      Resource = ["arn:aws:iam::*:user/homelab/${var.name}-*"]
    }]
  })
}

resource "aws_iam_access_key" "key" {
  for_each = var.pgp_key == "" ? {} : local.keys

  user    = aws_iam_user.key[each.key].name
  pgp_key = var.pgp_key
  status  = "Active"
}
