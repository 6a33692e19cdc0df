terraform {
  required_providers {
    gitlab = { source = "gitlabhq/gitlab" }
  }
}

resource "gitlab_project" "this" {
  name             = var.name
  description      = "The homelab: what is rented, the machines, the services, and llm-runner."
  namespace_id     = var.namespace
  visibility_level = "private"
  default_branch   = "main"

  # Nothing is merged that was not planned. With both a branch's and a merge request's pipeline GitLab looks at the latter only, so the
  # pipelines never make both.
  only_allow_merge_if_pipeline_succeeds            = true
  allow_merge_on_skipped_pipeline                  = false
  only_allow_merge_if_all_discussions_are_resolved = true
  merge_method                                     = "ff"
  squash_option                                    = "default_off"
  remove_source_branch_after_merge                 = true

  # Plans and job logs are nobody else's business, and an older pipeline must not apply over a newer one.
  public_jobs                     = false
  ci_forward_deployment_enabled   = true
  ci_separated_caches             = true
  ci_default_git_depth            = 50
  build_timeout                   = 5400
  restrict_user_defined_variables = true
  keep_latest_artifact            = false
  shared_runners_enabled          = var.shared_runners

  request_access_enabled = false
  archive_on_destroy     = true

  lifecycle {
    prevent_destroy = true
  }
}

resource "gitlab_branch_protection" "main" {
  project            = gitlab_project.this.id
  branch             = gitlab_project.this.default_branch
  push_access_level  = "no one"
  merge_access_level = "maintainer"
  allow_force_push   = false
}

resource "gitlab_tag_protection" "versions" {
  project             = gitlab_project.this.id
  tag                 = "v*"
  create_access_level = "maintainer"
}

# Names and scopes are no secrets, values are: for_each runs over the first.
resource "gitlab_project_variable" "this" {
  for_each = var.variables

  project           = gitlab_project.this.id
  key               = each.key
  value             = var.secrets[each.key]
  masked            = true
  hidden            = each.value.apply
  protected         = each.value.apply
  raw               = true
  environment_scope = each.value.scope
}

resource "gitlab_pipeline_schedule" "this" {
  for_each = var.schedules

  project       = gitlab_project.this.id
  description   = each.key
  ref           = "refs/heads/${gitlab_project.this.default_branch}"
  cron          = each.value
  cron_timezone = var.timezone
  active        = true
}

# What a pipeline knows its schedule by.
resource "gitlab_pipeline_schedule_variable" "kind" {
  for_each = var.schedules

  project              = gitlab_project.this.id
  pipeline_schedule_id = gitlab_pipeline_schedule.this[each.key].pipeline_schedule_id
  key                  = "SCHEDULE"
  value                = each.key
}
