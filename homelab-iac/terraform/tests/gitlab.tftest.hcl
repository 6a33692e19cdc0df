# The project's own settings.
mock_provider "gitlab" {}

variables {
  namespace = 1
  variables = {
    PLAN_TOKEN  = { apply = false }
    APPLY_TOKEN = { apply = true, scope = "production" }
  }
  secrets = {
    PLAN_TOKEN  = "plan-token-value"
    APPLY_TOKEN = "apply-token-value"
  }
}

run "the_project" {
  command = plan

  module {
    source = "./modules/gitlab_project"
  }

  assert {
    condition     = gitlab_project.this.only_allow_merge_if_pipeline_succeeds && !gitlab_project.this.allow_merge_on_skipped_pipeline && gitlab_project.this.merge_method == "ff"
    error_message = "Nothing is merged whose pipeline did not succeed, and what is merged is what was planned."
  }
  assert {
    condition     = gitlab_project.this.visibility_level == "private" && !gitlab_project.this.public_jobs
    error_message = "Nobody else reads it."
  }
  assert {
    condition     = gitlab_branch_protection.main.push_access_level == "no one" && !gitlab_branch_protection.main.allow_force_push
    error_message = "Nobody pushes to main."
  }
  assert {
    condition     = alltrue([for v in gitlab_project_variable.this : v.masked]) && gitlab_project_variable.this["APPLY_TOKEN"].protected && gitlab_project_variable.this["APPLY_TOKEN"].hidden && !gitlab_project_variable.this["PLAN_TOKEN"].protected
    error_message = "All are masked; those for applying are protected."
  }
  assert {
    condition     = alltrue([for s in gitlab_pipeline_schedule.this : s.active]) && length(gitlab_pipeline_schedule.this) == 3
    error_message = "Three things are started by the clock."
  }
}

run "a_value_that_cannot_be_masked_is_refused" {
  command = plan

  module {
    source = "./modules/gitlab_project"
  }

  variables {
    secrets = {
      PLAN_TOKEN  = "two words of it"
      APPLY_TOKEN = "apply-token-value"
    }
  }

  expect_failures = [var.secrets]
}
