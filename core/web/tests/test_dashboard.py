"""The dashboard in a real browser: `python3 -m unittest discover core/web/tests`."""

import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from platform_double import DIST, TOKEN, Platform, deployment  # noqa: E402
from webdriver import Browser  # noqa: E402

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


class DashboardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.platform = Platform()
        self.addCleanup(self.platform.close)
        self.addCleanup(self.browser.open, "about:blank")
        self.browser.resize(1440, 900)

    def open(self, address="", token=TOKEN):
        self.browser.open(self.platform.url + address)
        self.browser.until(lambda: self.browser.focus() == "token", "the form")
        self.browser.type("#token", token)
        self.browser.press("Enter")

    def with_history(self):
        live = deployment(2, "succeeded", 60, live=True, previous=1)
        self.platform.deployments["local"] = [deployment(1, "succeeded", 7200), live]
        self.platform.status["local"] = {"status": "deployed", "live": live}

    def with_running(self):
        self.with_history()
        running = deployment(3, "provisioned", 2, previous=2, finished_at=None)
        self.platform.deployments["local"].append(running)
        self.platform.status["local"].update(status="deploying", running=running)

    def test_without_a_token_it_shows_the_server_and_asks_for_one(self):
        self.browser.open(self.platform.url)
        self.browser.until_text("1.2.3", ".facts")
        self.browser.until_text("healthy", ".facts")
        self.assertEqual(self.browser.focus(), "token")

    def test_a_wrong_token_is_not_kept(self):
        self.open(token="wrong")
        self.browser.until_text("does not know this token")
        self.assertEqual(self.browser.run("return sessionStorage.length + localStorage.length"), 0)

    def test_the_token_stays_in_the_tab_and_goes_with_sign_out(self):
        self.open()
        self.browser.until_text("Documentation", ".tenants")
        self.assertEqual(self.browser.run("return [localStorage.length, document.cookie, location.href.includes('token')]"), [0, "", False])
        self.browser.click("#leave")
        self.browser.until_text("Sign in")
        self.assertEqual(self.browser.run("return sessionStorage.length"), 0)

    def test_a_token_that_expires_leads_back_to_the_door(self):
        self.open("#/local")
        self.browser.until_text("Nothing has been deployed here yet.")
        self.platform.token = "another"
        self.browser.until_text("has expired or was revoked")
        self.assertNotIn("Documentation", self.browser.text())

    def test_the_history_of_a_tenant(self):
        self.with_history()
        self.open()
        self.browser.until_text("Local", ".cards")
        self.browser.click("#tenant-local")
        self.browser.until(lambda: self.browser.run("return document.querySelectorAll('.history tbody tr').length") == 2, "two rows")
        rows = self.browser.run("return [...document.querySelectorAll('.history tbody tr')].map((row) => row.innerText)")
        self.assertRegex(rows[0], r"(?is)#2.*succeeded.*live.*tag-2.*1 min ago.*2\.0 s")
        self.assertRegex(rows[1], r"(?is)#1.*succeeded.*tag-1.*2 h ago")
        self.assertIn("127.0.0.1:9", self.browser.text(".url"))

    def test_a_running_deployment_is_followed(self):
        self.with_running()
        self.platform.add_event(3, "requested", "requested by operator")
        self.platform.log(2, "line of another deployment")
        self.platform.log(3, "listening on 4711")
        self.open("#/local/3")
        self.browser.until_text("requested by operator", ".steps")
        self.browser.until_text("listening on 4711", ".log")
        self.platform.add_event(3, "healthy", "answered after 0.4 s")
        self.browser.until_text("answered after 0.4 s", ".steps")
        self.platform.log(3, "a line that came later", "stderr")
        self.browser.until_text("a line that came later", ".log .stderr")
        log = self.browser.text(".log")
        self.assertEqual((log.count("listening on 4711"), log.count("another deployment")), (1, 0))

    def test_a_rollback_asks_first_and_then_shows_its_deployment(self):
        self.with_history()
        self.open("#/local/1")
        self.browser.until_text("Roll back to this release", ".panel")
        self.browser.click("#roll-back")
        self.assertEqual(self.browser.focus(), "confirm-no", "the harmless answer is the first")
        self.browser.press("Escape")
        self.assertEqual(self.platform.rollbacks, [])
        self.browser.click("#roll-back")
        self.browser.click("#confirm-yes")
        self.browser.until(lambda: self.platform.rollbacks == [{"to": "1"}], "the request")
        self.browser.until(lambda: self.browser.run("return location.hash") == "#/local/3", "its deployment")

    def in_state(self, state):
        self.with_history()
        row = deployment(3, state, 2, previous=2, finished_at=None)
        self.platform.deployments["local"].append(row)
        status = "needs_operator" if state == "needs_operator" else "deploying"
        self.platform.status["local"].update(status=status, running=row)

    def test_a_deployment_that_is_watched_can_be_promoted_or_aborted(self):
        self.in_state("paused")
        self.open("#/local/3")
        self.browser.until_text("Promote", ".panel")
        self.browser.click("#promote")
        self.browser.until_text("Promote deployment #3 of Local?", "dialog")
        self.browser.press("Escape")
        self.assertEqual(self.platform.words, [])
        self.browser.click("#promote")
        self.browser.click("#confirm-yes")
        self.browser.until(lambda: self.platform.words == ["deployments/3/promote"], "the word")
        self.browser.until(lambda: self.browser.run("return document.querySelector('dialog').open") is False, "the end of the question")
        self.browser.click("#abort")
        self.browser.click("#confirm-yes")
        self.browser.until(lambda: self.platform.words[1:] == ["deployments/3/abort"], "the word")

    def test_what_only_an_operator_can_settle_says_so(self):
        self.in_state("needs_operator")
        self.open("#/local")
        self.browser.until_text("Nobody can deploy until somebody has looked", ".banner")
        self.browser.click("#follow")
        self.browser.until_text("It is settled", ".panel")
        self.browser.click("#settle")
        self.browser.until_text("This changes no traffic", "dialog")
        self.browser.click("#confirm-yes")
        self.browser.until(lambda: self.platform.words == ["deployments/3/abort"], "the word")

    def test_a_deployment_that_is_committed_or_over_has_nothing_to_be_said_to(self):
        self.in_state("verified")
        self.open("#/local/3")
        for state in ("verified", "draining", "rolling_back", "failed", "rolled_back"):
            with self.subTest(state):
                self.in_state(state)
                self.browser.until_text(state.replace("_", " "), ".panel")
                self.assertEqual(self.browser.run("return document.querySelectorAll('.panel .buttons button').length"), 0)

    def test_a_refused_rollback_says_why(self):
        self.with_history()
        self.platform.rollback_refusal = (409, "deployment_in_progress", "busy")
        self.open("#/local/1")
        self.browser.until_text("Roll back to this release", ".panel")
        self.browser.click("#roll-back")
        self.browser.click("#confirm-yes")
        self.browser.until_text("Another deployment is running", "dialog")

    def test_keyboard_opens_and_closes_a_deployment(self):
        self.with_history()
        self.open("#/local")
        self.browser.until_text("tag-1")
        self.browser.run("document.getElementById('row-1').focus()")
        self.browser.press("Enter")
        self.browser.until_text("Deployment #1", ".panel")
        self.browser.press("Escape")
        self.browser.until(lambda: self.browser.run("return !document.querySelector('.panel')"), "closed")
        self.assertEqual(self.browser.focus(), "row-1")

    def test_nothing_the_server_sends_becomes_markup(self):
        failure = {"code": HOSTILE, "message": HOSTILE, "log_tail": [HOSTILE]}
        bad = deployment(1, "failed", 60, tag=HOSTILE, image=HOSTILE, actor=HOSTILE, failure=failure)
        self.platform.tenants = [{"id": "local", "name": HOSTILE, "app_url": "javascript:window.hacked=1"}]
        self.platform.status["local"] = {"status": HOSTILE, "message": HOSTILE}
        self.platform.deployments["local"] = [bad]
        self.platform.add_event(1, "failed", HOSTILE)
        self.platform.log(1, HOSTILE)
        self.open("#/local/1")
        self.browser.until_text("<script>", ".log")
        self.browser.until_text("<script>", ".steps")
        self.assertEqual(self.browser.run("return [window.hacked ?? 0, document.querySelectorAll('main img, main script').length, document.querySelectorAll('a[href^=javascript]').length]"), [0, 0, 0])

    def test_trouble_is_said_and_passes(self):
        self.with_history()
        self.open("#/local")
        self.browser.until_text("tag-2")
        self.platform.broken = True
        self.browser.until_text("Something went wrong: the disk is full.", "#notice")
        self.assertIn("tag-2", self.browser.text(), "what is known stays on the page")
        self.platform.broken = False
        self.browser.until(lambda: self.browser.text("#notice") == "", "the notice goes")

    def test_empty_places_say_what_to_do(self):
        self.platform.tenants = []
        self.open()
        self.browser.until_text("There are no tenants yet.")
        self.browser.run("location.hash = '#/nobody'")
        self.browser.until_text("no tenant “nobody” here")

    def test_it_fits_a_telephone(self):
        self.with_running()
        self.browser.resize(360, 740)
        self.open("#/local")
        self.browser.until_text("tag-1")
        for address in ("#/local", "#/local/3", "#/"):
            self.browser.run(f"location.hash = '{address}'")
            width = self.browser.run("return document.documentElement.scrollWidth")
            self.assertLessEqual(width, 360, address)

    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [], "neither errors nor breaches of the policy")


class FilesTest(unittest.TestCase):
    def test_nothing_is_inline_or_from_elsewhere(self):
        html = (DIST / "index.html").read_text()
        self.assertNotRegex(html, r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)")
        for file in DIST.iterdir():
            content = file.read_text().replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(content, r"(src|href|import|url\()\W{0,3}(https?:)?//", file.name)
            self.assertNotRegex(content, r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", file.name)

    def test_every_import_is_there(self):
        for file in DIST.glob("*.js"):
            for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
                self.assertTrue((DIST / name).is_file(), f"{file.name} imports {name}")


if __name__ == "__main__":
    unittest.main()
