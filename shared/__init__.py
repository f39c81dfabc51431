"""The modules that the functions share."""

__version__ = "0.1.0"  # of the whole project: functions, migrations and deploy.sh. CHANGELOG.md says what is in it
