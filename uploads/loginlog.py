"""One log line for each failed login, as fail2ban reads it.

It holds no user name: somebody may have typed a password there.
"""

import logging

from django.contrib.auth.signals import user_login_failed
from django.dispatch import receiver

logger = logging.getLogger(__name__)


@receiver(user_login_failed)
def log_failed_login(request=None, **kwargs):
    # A login in a script has no address.
    if request:
        logger.warning("Login failed from %s.", request.META["REMOTE_ADDR"])
