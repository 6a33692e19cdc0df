#!/usr/bin/python
"""Write many small files, and make folders, in one call: a loop over copy takes three for each of them."""

import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: homelab_files
short_description: Write many small files and make folders in one call
description:
  - Each entry is a file, where it has content, or else a folder; folders above it that are missing become like it.
  - A file is replaced in one step, and left alone when it says the same. Owners are numbers; root's where nothing is said.
options:
  folder: {description: Where paths that do not begin with / are, type: path, default: /}
  mode: {description: The mode of entries that name none, type: str, default: "0644"}
  files:
    description: What there shall be, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Where, type: str, required: true}
      content: {description: What is in it; left out it is a folder, type: str}
      mode: {description: As chmod writes it, such as 0640, type: str}
      uid: {description: The owner, type: int, default: 0}
      gid: {description: The group, type: int, default: 0}
"""

EXAMPLES = r"""
- homelab_files:
    files:
      - {path: /etc/homelab, mode: "0700"}
      - {path: /etc/homelab/a, content: "text\n", mode: "0600"}
- homelab_files:
    folder: /etc/homelab
    mode: "0600"
    files:
      - {path: b, content: "another\n"}
"""

RETURN = r"""
paths: {description: What was changed, type: list, returned: always}
"""


def look(path):
    """Return what stands there: its status, None where nothing does; and of a file its bytes."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None, None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as f:
            return status, f.read()
    return status, None


def above(path):
    """List the folders above that are missing, the uppermost first."""
    missing = []
    while (path := os.path.dirname(path)) and not os.path.isdir(path):
        missing.insert(0, path)
    return missing


def write(path, content, mode, uid, gid):
    """Put a file in its place in one step. Nobody else reads it before it is there."""
    handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix="." + os.path.basename(path) + ".")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            os.fchown(f.fileno(), uid, gid)
            os.fchmod(f.fileno(), mode)
            f.flush()
            os.fsync(f.fileno())
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise


def main():
    """Run the module."""
    one = {"path": {"type": "str", "required": True}, "content": {"type": "str"}, "mode": {"type": "str"},
           "uid": {"type": "int", "default": 0}, "gid": {"type": "int", "default": 0}}
    spec = {"folder": {"type": "path", "default": "/"}, "mode": {"type": "str", "default": "0644"},
            "files": {"type": "list", "elements": "dict", "required": True, "options": one}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    changed, diff = [], []
    for entry in module.params["files"]:
        path, uid, gid = os.path.join(module.params["folder"], entry["path"]).rstrip("/"), entry["uid"], entry["gid"]
        text = entry["mode"] or module.params["mode"]
        try:
            mode = int(text, 8)
        except ValueError:
            module.fail_json(msg="%s: mode %s is no mode: write it as 0640" % (path, text))
        folder = entry["content"] is None
        content = None if folder else entry["content"].encode()
        try:
            there, was = look(path)
            if there and (stat.S_ISDIR(there.st_mode) if not folder else not stat.S_ISDIR(there.st_mode)):
                module.fail_json(msg="%s is in the way: it is %s folder" % (path, "no" if folder else "a"))
            owned = there and (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == (uid, gid, mode)
            if owned and was == content:
                continue
            changed.append(path)
            if not folder and was != content:
                diff.append({"before_header": path, "after_header": path, "before": (was or b"").decode("utf-8", "replace"), "after": entry["content"]})
            if module.check_mode:
                continue
            if folder:
                for missing in [*above(path), path]:
                    if missing != path or not there:
                        os.mkdir(missing, 0o700)
                    os.chown(missing, uid, gid)
                    os.chmod(missing, mode)
            else:
                write(path, content, mode, uid, gid)
        except OSError as e:
            module.fail_json(msg="write %s: %s: is its folder there, and the disk not full?" % (path, e.strerror))
    module.exit_json(changed=bool(changed), paths=changed, diff=diff)


if __name__ == "__main__":
    main()
